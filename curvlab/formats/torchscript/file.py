"""TorchScript archives, read without running them: the attributes of the scripted modules, and the frozen constants.

`data.pkl` names every scripted module with its attributes, `constants.pkl` the tensors that tracing or freezing put
into the code; the code itself (`code/*.py`) is never looked at.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from torch import Tensor

from curvlab.formats.raw_checkpoint import RawCheckpoint
from curvlab.formats.tensor_tree import tensors_in_tree
from curvlab.formats.torch.pickle_recovery import traced_pickle, zip_storages
from curvlab.formats.torch.pickle_trace import MAX_BYTES
from curvlab.formats.torch.pickle_vetting import damaged
from curvlab.formats.torch.traced_tensors import traced_tree
from curvlab.formats.zip_bytes import ZipBytes
from curvlab.quoting import listed, quoted


def read_torchscript(path: Path, max_memory: int | None = None) -> RawCheckpoint:
    """The tensors of a TorchScript archive under the names of its modules' attributes.

    Raises:
        CheckpointError: a damaged or dishonest archive, or one that describes its tensors wrongly.
    """
    archive = ZipBytes(path, max_memory)
    pickles = [name for name in archive.entries if name.split("/")[1:] == ["data.pkl"]]
    if len(pickles) != 1:
        raise damaged(path, f"it has {len(pickles)} entries named data.pkl")
    folder = pickles[0].removesuffix("data.pkl")
    # torch reads the folder that the first entry is in, whichever that is.
    if not all(name.startswith(folder) for name in archive.entries):
        raise damaged(path, f"it has entries outside of its folder {quoted(folder)}")
    if archive.size(f"{folder}byteorder") is not None and archive.read(f"{folder}byteorder", 16) != b"little":
        raise damaged(path, "it was written by a big-endian machine, which is read only by torch itself")
    attributes = _tree(path, archive, folder, "data")
    constants = _tree(path, archive, folder, "constants")
    weights = _flat("", attributes)
    named = {f"constants.{place}": value for place, value in enumerate(constants or ()) if isinstance(value, Tensor)}
    notes = (f"tensors in the code of the archive: {listed(named)}",) if named else ()
    return tensors_in_tree(path, "torchscript", {**weights, **named}, (*notes, *archive.notes))


def _tree(path: Path, archive: ZipBytes, folder: str, name: str) -> Any:
    contents = traced_pickle(path, io.BytesIO(archive.read(f"{folder}{name}.pkl", MAX_BYTES)))
    return traced_tree(path, contents, zip_storages(path, archive, f"{folder}{name}/"))


def _flat(prefix: str, tree: Any) -> dict[str, Tensor]:
    """Dotted names made here: a part of the network that is called "model" is no wrapper around the weights."""
    if isinstance(tree, Tensor):
        return {prefix: tree}
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    flat: dict[str, Tensor] = {}
    for key, value in items:
        flat |= _flat(f"{prefix}.{key}" if prefix else str(key), value)
    return flat
