"""PyTorch checkpoints (.pt, .pth, .bin, .ckpt), of today (zip) and of before version 1.6 (pickles one after the other).

Three steps for both: the pickle is read inertly and vetted, the storages it declares are compared with the bytes of the
file, and only then `torch.load(weights_only=True)` builds the tensors; those of a zip are mapped from the file, not
copied. A pickle that names classes of its own is never opened: `refused_pickle` reads what tensors it tells of.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from curvlab.errors import MemoryBudgetError, out_of_memory
from curvlab.formats.raw_checkpoint import RawCheckpoint
from curvlab.formats.tensor_tree import tensors_in_tree
from curvlab.formats.torch.pickle_recovery import must_stay_closed, recovered_legacy, recovered_zip, traced_pickle
from curvlab.formats.torch.pickle_trace import MAX_BYTES, Global
from curvlab.formats.torch.pickle_vetting import (
    Storage,
    damaged,
    declared_storages,
    foreign_names,
    refused_classes,
    torch_says,
    vetted_storages,
)
from curvlab.formats.zip_archive import check_entry, checksum_notes, open_archive, read_entry
from curvlab.quoting import quoted

_UNTYPED = Global("torch.storage", "UntypedStorage")


def read_torch_zip(path: Path, max_memory: int | None = None) -> RawCheckpoint:
    """A checkpoint in torch's zip format.

    Raises:
        CheckpointError: foreign classes, a damaged or dishonest archive, nothing that looks like a state dictionary.
    """
    with open_archive(path, max_memory) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            raise damaged(path, f"it has {len(pickles)} entries named data.pkl")
        contents = traced_pickle(path, io.BytesIO(read_entry(path, archive, pickles[0], MAX_BYTES)))
        folder = pickles[0].removesuffix("data.pkl")
        # torch reads the folder that the first entry is in, whichever that is.
        if not all(name.startswith(folder) for name in names):
            raise damaged(path, f"it has entries outside of its folder {quoted(folder)}")
        if must_stay_closed(contents):
            return recovered_zip(path, "torch-zip", contents, folder, max_memory)
        order = f"{folder}byteorder"
        if order in names and (said := read_entry(path, archive, order, 64)) not in (b"little", b"big"):
            raise damaged(path, f"{quoted(said.decode('latin-1'))} is no order of bytes")
        notes = checksum_notes(archive)
        mapped = _check_records(path, archive, f"{folder}data/", vetted_storages(path, contents))
    # torch.load maps files by name only, and believes a name that ends in .safetensors.
    return tensors_in_tree(path, "torch-zip", _load(path, mmap=mapped and path.suffix != ".safetensors"), notes)


def read_torch_legacy(path: Path, max_memory: int | None = None) -> RawCheckpoint:
    """A checkpoint in torch's format of before version 1.6, read into memory as a whole.

    Raises:
        CheckpointError: as `read_torch_zip`.
        MemoryBudgetError: the file is larger than `max_memory`.
    """
    file_bytes = path.stat().st_size
    if max_memory is not None and file_bytes > max_memory:
        raise MemoryBudgetError(
            f"{quoted(path)} needs {file_bytes} bytes",
            f"files of this old format are read as a whole and --max-memory allows {max_memory}",
            "save it again with a current torch",
        )
    with path.open("rb") as file:
        stream = io.BytesIO(file.read(MAX_BYTES))
    for _ in range(3):  # magic number, protocol version, facts about the writing machine
        traced_pickle(path, stream)
    contents = traced_pickle(path, stream)
    if must_stay_closed(contents) and not declared_storages(path, contents):
        raise refused_classes(path, foreign_names(contents))
    keys = traced_pickle(path, stream).value
    # torch's own reader of this format does not know storages without a type, which float8 tensors have.
    identifiers = [reference.identifier for reference in contents.persistent]
    untyped = any(isinstance(identifier, tuple) and _UNTYPED in identifier for identifier in identifiers)
    if must_stay_closed(contents) or untyped:
        places = _checked_layout(path, declared_storages(path, contents), keys, stream.tell())
        return recovered_legacy(path, contents, places)
    _checked_layout(path, vetted_storages(path, contents), keys, stream.tell())
    return tensors_in_tree(path, "torch-legacy", _load(path, mmap=False))


def _check_records(path: Path, archive: zipfile.ZipFile, folder: str, storages: list[Storage]) -> bool:
    """Every storage has its bytes in the archive, with their checksum; returns whether all can be mapped from it."""
    mapped = True
    for storage in dict.fromkeys(storages):
        try:
            record = archive.getinfo(folder + storage.key)
        except KeyError:
            raise damaged(path, f"it has no bytes for storage {quoted(storage.key)}") from None
        if record.file_size < storage.stored_bytes:
            raise damaged(
                path, f"storage {quoted(storage.key)} has {record.file_size} bytes instead of {storage.stored_bytes}"
            )
        check_entry(path, archive, record.filename)  # torch compares those that it maps with nothing
        mapped = mapped and record.compress_type == zipfile.ZIP_STORED
    return mapped


def _checked_layout(path: Path, storages: list[Storage], keys: Any, position: int) -> dict[str, int]:
    """Where each storage's bytes begin: they follow the pickles in the order of `keys`, eight bytes of count first."""
    places = {}
    declared = {storage.key: storage for storage in storages}
    if any(storage != declared[storage.key] for storage in storages):
        raise damaged(path, "it describes one storage in two ways")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or sorted(keys) != sorted(declared):
        raise damaged(path, "its list of storages does not match the tensors")
    file_bytes = path.stat().st_size
    with path.open("rb") as file:
        for key in keys:
            storage = declared[key]
            file.seek(position)
            count = int.from_bytes(file.read(8), "little")
            if count != storage.elements:
                raise damaged(path, f"storage {quoted(key)} has {count} elements instead of {storage.elements}")
            places[key] = position + 8
            position += 8 + storage.stored_bytes
            if position > file_bytes:
                raise damaged(path, f"it ends {position - file_bytes} bytes before storage {quoted(key)} does")
    return places


def _load(path: Path, mmap: bool) -> Any:
    try:
        with warnings.catch_warnings():
            # Remarks for authors of checkpoints (TypedStorage, pickle protocols), not for their readers.
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("ignore", FutureWarning)
            with path.open("rb") as file:
                return torch.load(path if mmap else file, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # torch's reader raises whatever the bytes provoke
        if out_of_memory(error):
            raise
        raise damaged(path, f"torch cannot read it ({torch_says(error)})") from None
