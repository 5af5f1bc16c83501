"""Tensors of .safetensors and .pt files as data: header or pickle are vetted first, then the drawn rows are read."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curvlab.data.budget import within
from curvlab.data.stored_arrays import Draw, StoredArray, gathered
from curvlab.errors import CheckpointError, DataError

if TYPE_CHECKING:
    from torch import Tensor

    from curvlab.data.dataset import Dataset


def read_safetensors(path: Path, draw: Draw, max_memory: int | None) -> Dataset:
    """Tensors of a safetensors file, mapped: only pages with drawn rows are read."""
    from safetensors import SafetensorError, safe_open

    from curvlab.formats.safetensors.header import read_header

    try:
        read_header(path)
        with safe_open(path, framework="pt") as file:
            stored = {name: _stored(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118 - no mapping
            return gathered(stored, path.stem, f"'{path}'", draw, max_memory)
    except CheckpointError as error:
        raise DataError(f"'{path}' is not a safetensors file that can be read", error.why) from error
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise DataError(f"'{path}' is not a safetensors file that can be read", str(error)) from error


def read_torch(path: Path, draw: Draw, max_memory: int | None) -> Dataset:
    """A tensor, a pair (x, y) or a dictionary of tensors saved by `torch.save`; anything else is refused, unrun."""
    import torch

    content = _vetted(path, max_memory)
    if isinstance(content, torch.Tensor):
        content = {"x": content}
    elif isinstance(content, (tuple, list)) and len(content) <= 2:
        content = dict(zip("xy", content, strict=False))
    if not isinstance(content, Mapping):
        raise DataError(
            f"'{path}' holds a {type(content).__name__}", "a tensor, a pair (x, y) or a dictionary was expected"
        )
    stored = {str(key): _stored(value) for key, value in content.items() if isinstance(value, torch.Tensor)}
    return gathered(stored, path.stem, f"'{path}'", draw, max_memory)


def _stored(tensor: Tensor) -> StoredArray:
    """A tensor whose bytes are still in the file, or that is in memory as the file has it."""

    def read(rows: Tensor | None) -> Tensor:
        return tensor.clone() if rows is None else tensor[rows]

    return StoredArray(tuple(tensor.shape), tensor.is_floating_point(), tensor.element_size(), read)


def _vetted(path: Path, max_memory: int | None) -> Any:
    """What `torch.load` makes of the file, after its pickle was read inertly: nothing is called but what lays tensors
    over bytes that the file has. Tensors of today's format are mapped, those of the old one read as a whole.

    Raises:
        DataError: other calls, or bytes that are not there.
    """
    import torch

    why, do = "it holds Python objects, or is damaged, and only plain tensors are read", "save a pair (x, y) of tensors"
    refused = f"'{path}' cannot be read as tensors", why, f"{do} with torch.save"
    mapped = zipfile.is_zipfile(path)
    try:
        _check_zip(path, max_memory) if mapped else _check_legacy(path, max_memory)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks for authors of checkpoints
            if mapped and path.suffix != ".safetensors":  # torch maps by name, and believes a name that ends so
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            with path.open("rb") as file:
                return torch.load(file, map_location="cpu", weights_only=True)
    except DataError:
        raise
    except CheckpointError as error:
        raise DataError(refused[0], error.why or why, refused[2]) from error
    except Exception as error:  # torch's reader raises whatever the bytes provoke; nothing of them has run
        raise DataError(*refused) from error


def _check_zip(path: Path, max_memory: int | None) -> None:
    from curvlab.formats.torch.pickle_recovery import traced_pickle
    from curvlab.formats.torch.pickle_trace import MAX_BYTES
    from curvlab.formats.torch.pickle_vetting import vetted_storages
    from curvlab.formats.zip_archive import open_archive, read_entry

    with open_archive(path, max_memory) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.split("/")[1:] == ["data.pkl"]]
        folder = pickles[0].removesuffix("data.pkl") if pickles else ""
        if len(pickles) != 1 or not all(name.startswith(folder) for name in names):
            raise DataError(f"'{path}' is an archive that torch.save did not write", "only plain tensors are read")
        for info in archive.infolist():
            if info.compress_type != zipfile.ZIP_STORED:
                why = "torch.save compresses nothing, and what is compressed cannot be mapped"
                raise DataError(f"'{path}' holds compressed tensors", why, "save it again with torch.save")
        pickle = io.BytesIO(read_entry(path, archive, pickles[0], MAX_BYTES))
        for storage in vetted_storages(path, traced_pickle(path, pickle)):
            record = f"{folder}data/{storage.key}"
            if record not in names or archive.getinfo(record).file_size < storage.stored_bytes:
                raise DataError(f"'{path}' lacks bytes of one of its tensors", "it is cut off or damaged")


def _check_legacy(path: Path, max_memory: int | None) -> None:
    from curvlab.formats.torch.pickle_recovery import traced_pickle
    from curvlab.formats.torch.pickle_trace import MAX_BYTES
    from curvlab.formats.torch.pickle_vetting import vetted_storages

    size = path.stat().st_size
    within(size, max_memory, f"'{path}'")  # this format is read as a whole
    with path.open("rb") as file:
        stream = io.BytesIO(file.read(min(size, MAX_BYTES)))
    for _ in range(3):  # magic number, protocol version, facts about the writing machine
        traced_pickle(path, stream)
    declared = {storage.key: storage.stored_bytes for storage in vetted_storages(path, traced_pickle(path, stream))}
    if sum(declared.values()) > size:
        raise DataError(f"'{path}' lacks bytes of one of its tensors", "it is cut off or damaged")
