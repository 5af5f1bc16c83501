"""PyTorch checkpoints (.pt, .pth, .bin, .ckpt), of today (zip) and of before version 1.6 (pickles one after the other).

Three steps for both: the pickle is read inertly and vetted, the storages it declares are compared with the bytes of the
file, and only then `torch.load(weights_only=True)` builds the tensors; those of a zip are mapped from the file, not
copied.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from curvlab.checkpoints.inert_pickle import MAX_BYTES, Contents, NotAPickle, read_pickle
from curvlab.checkpoints.quoting import listed, quoted, reason
from curvlab.checkpoints.state_dict import state_dict_of
from curvlab.checkpoints.stored import LazyTensors, Stored
from curvlab.checkpoints.torch_pickle import Storage, vetted_storages
from curvlab.checkpoints.zip_archive import open_archive, read_entry
from curvlab.errors import CheckpointError, MemoryBudgetError

NEWEST_PROTOCOL = 3


def read_torch_zip(path: Path, max_memory: int | None = None) -> Stored:
    """A checkpoint in torch's zip format.

    Raises:
        CheckpointError: foreign classes, a damaged or dishonest archive, nothing that looks like a state dictionary.
    """
    with open_archive(path, max_memory) as archive:
        pickles = [name for name in archive.namelist() if name.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            raise _damaged(path, f"it has {len(pickles)} entries named data.pkl")
        contents = _inert(path, io.BytesIO(read_entry(path, archive, pickles[0], MAX_BYTES)))
        folder = pickles[0].removesuffix("data.pkl")
        mapped = _check_records(path, archive, f"{folder}data/", vetted_storages(path, contents))
    # torch.load maps files by name only, and believes a name that ends in .safetensors.
    return _stored(path, "torch-zip", _load(path, mmap=mapped and path.suffix != ".safetensors"))


def read_torch_legacy(path: Path, max_memory: int | None = None) -> Stored:
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
        _inert(path, stream)
    contents, keys = _inert(path, stream), _inert(path, stream).value
    _check_layout(path, vetted_storages(path, contents), keys, stream.tell())
    return _stored(path, "torch-legacy", _load(path, mmap=False))


def foreign_classes(path: Path) -> CheckpointError:
    """The answer for a bare pickle: it is never opened, but the classes it names are told."""
    with path.open("rb") as file:
        stream = io.BytesIO(file.read(MAX_BYTES))
    try:
        named = read_pickle(stream).globals
    except NotAPickle as error:
        return CheckpointError(f"{quoted(path)} begins like a pickle but is broken", str(error), "download it again")
    return CheckpointError(
        f"{quoted(path)} is a bare pickle of {listed(sorted(map(str, named))) if named else 'plain values'}",
        "opening it would run code from the file, which curvlab never does",
        "where you trust it, save the weights alone with torch.save(model.state_dict(), path)",
    )


def _inert(path: Path, stream: io.BytesIO) -> Contents:
    try:
        contents = read_pickle(stream)
    except NotAPickle as error:
        raise _damaged(path, f"its pickle cannot be followed ({error})") from None
    if contents.protocol > NEWEST_PROTOCOL:
        raise CheckpointError(
            f"{quoted(path)} was saved with pickle protocol {contents.protocol}",
            f"torch's safe reader knows protocols up to {NEWEST_PROTOCOL}",
            "save it again with torch.save(..., pickle_protocol=2)",
        )
    return contents


def _check_records(path: Path, archive: zipfile.ZipFile, folder: str, storages: list[Storage]) -> bool:
    """Every storage has its bytes in the archive; returns whether all are stored uncompressed and can be mapped."""
    mapped = True
    for storage in storages:
        try:
            record = archive.getinfo(folder + storage.key)
        except KeyError:
            raise _damaged(path, f"it has no bytes for storage {quoted(storage.key)}") from None
        if record.file_size < storage.stored_bytes:
            raise _damaged(
                path, f"storage {quoted(storage.key)} has {record.file_size} bytes instead of {storage.stored_bytes}"
            )
        mapped = mapped and record.compress_type == zipfile.ZIP_STORED
    return mapped


def _check_layout(path: Path, storages: list[Storage], keys: Any, position: int) -> None:
    """After the pickles the storages follow in the order of `keys`: eight bytes of count, then the elements."""
    declared = {storage.key: storage for storage in storages}
    if any(storage != declared[storage.key] for storage in storages):
        raise _damaged(path, "it describes one storage in two ways")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or sorted(keys) != sorted(declared):
        raise _damaged(path, "its list of storages does not match the tensors")
    file_bytes = path.stat().st_size
    with path.open("rb") as file:
        for key in keys:
            storage = declared[key]
            file.seek(position)
            count = int.from_bytes(file.read(8), "little")
            if count != storage.elements:
                raise _damaged(path, f"storage {quoted(key)} has {count} elements instead of {storage.elements}")
            position += 8 + storage.stored_bytes
            if position > file_bytes:
                raise _damaged(path, f"it ends {position - file_bytes} bytes before storage {quoted(key)} does")


def _load(path: Path, mmap: bool) -> Any:
    try:
        with warnings.catch_warnings():
            # Remarks for authors of checkpoints (TypedStorage, pickle protocols), not for their readers.
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("ignore", FutureWarning)
            with path.open("rb") as file:
                return torch.load(path if mmap else file, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # torch's reader raises whatever the bytes provoke
        raise _damaged(path, f"torch cannot read it ({reason(error)})") from None


def _stored(path: Path, name: str, tree: Any) -> Stored:
    if not isinstance(tree, Mapping | list | tuple):
        raise CheckpointError(
            f"{quoted(path)} holds {_described(tree)}, not a dictionary of tensors",
            do="save the weights with torch.save(model.state_dict(), path)",
        )
    found = state_dict_of(path, tree)
    notes = list(found.notes)
    if found.aliases:
        pairs = (f"{alias} = {kept}" for alias, kept in found.aliases.items())
        notes.append(f"tied: the same weights under two names ({listed(pairs)})")
    return Stored(
        format=name,
        files=(path,),
        specs=found.specs,
        tensors=LazyTensors(found.readers),
        aliases=found.aliases,
        ordered=True,
        notes=tuple(notes),
    )


def _described(tree: Any) -> str:
    shape = getattr(tree, "shape", None)
    return f"one tensor of shape {tuple(shape)}" if shape is not None else f"a {type(tree).__name__}"


def _damaged(path: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{quoted(path)} is a damaged PyTorch checkpoint", why, "download or copy it again")
