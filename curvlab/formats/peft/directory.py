"""The tensors of an adapter folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from curvlab.formats.paths import regular_file, stays_inside
from curvlab.formats.peft.place import SETTINGS, WEIGHTS
from curvlab.formats.peft.settings import read_settings
from curvlab.formats.raw_checkpoint import RawCheckpoint
from curvlab.formats.safetensors.file import read_safetensors
from curvlab.formats.torch.file import read_torch_legacy, read_torch_zip


def read_peft(path: Path, max_memory: int | None = None) -> RawCheckpoint:
    """The weights of an adapter, by their names in the file.

    Raises:
        CheckpointError: settings or weights that are not valid, or links out of the folder.
    """
    read_settings(path)
    weights = next(path / name for name in WEIGHTS if (path / name).exists())
    stays_inside(regular_file(weights), path)
    if weights.suffix == ".safetensors":
        stored = read_safetensors(weights)
    else:
        with weights.open("rb") as file:
            is_zip = file.read(4) == b"PK\x03\x04"
        stored = (read_torch_zip if is_zip else read_torch_legacy)(weights, max_memory)
    return replace(stored, format="peft", files=(*stored.files, path / SETTINGS))
