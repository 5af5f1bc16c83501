"""Pickles that must stay closed: opening them would run code, so their tensors are recovered without opening them.

Whole pickled networks, checkpoints that carry settings of foreign classes, pickles that no torch wrote: their
instructions are followed inertly (`traced_pickle`), the tensors they speak of are read from the file's bytes
(`inert_tensors`), and the foreign classes become a note.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from curvlab.errors import CheckpointError, MemoryBudgetError
from curvlab.formats.raw_checkpoint import RawCheckpoint
from curvlab.formats.tensor_tree import tensors_in_tree
from curvlab.formats.torch.pickle_trace import MAX_INSTRUCTIONS, Contents, NotAPickle, read_pickle
from curvlab.formats.torch.pickle_vetting import Storage, damaged, foreign_names, refused_classes
from curvlab.formats.torch.traced_tensors import Bytes, traced_tree
from curvlab.formats.zip_bytes import ZipBytes
from curvlab.quoting import listed, quoted

NEWEST_PROTOCOL = 3
"""The newest that torch's own safe reader knows."""
# A bare pickle holds its tensors inside itself, so it is read as a whole; beyond this it is no model's.
MAX_BARE_BYTES = 2**30
MOST_BEHIND = 1000
"""Pickles that are followed behind the first one of a file."""


def traced_pickle(path: Path, stream: io.BytesIO) -> Contents:
    """The contents of the pickle at the stream's position.

    Raises:
        CheckpointError: it is no complete pickle.
    """
    try:
        return read_pickle(stream)
    except NotAPickle as error:
        raise damaged(path, f"its pickle cannot be followed ({error})") from None


def must_stay_closed(contents: Contents) -> bool:
    """Whether torch's safe reader would refuse the pickle, for its classes or for its protocol."""
    return bool(foreign_names(contents)) or contents.protocol > NEWEST_PROTOCOL


def recovered_zip(path: Path, name: str, contents: Contents, folder: str, max_memory: int | None) -> RawCheckpoint:
    """The tensors of a zip archive whose pickle must stay closed.

    Args:
        path: the archive.
        name: of the format.
        contents: of its pickle.
        folder: the folder of the pickle within the archive, with the stroke at its end.
        max_memory: bytes that compressed storages may inflate to.

    Raises:
        CheckpointError: no tensor could be recovered, or one does not fit its storage.
    """
    archive = ZipBytes(path, max_memory)
    order = f"{folder}byteorder"
    if archive.size(order) is not None and archive.read(order, 16) != b"little":
        raise damaged(path, "it was written by a big-endian machine, which is read only by torch itself")
    return _recovered(path, name, contents, zip_storages(path, archive, f"{folder}data/"), archive.notes)


def recovered_legacy(path: Path, contents: Contents, places: Mapping[str, int]) -> RawCheckpoint:
    """The tensors of a file in torch's old format whose pickle must stay closed.

    Args:
        path: the file.
        contents: of its pickle.
        places: storage's key -> where its bytes begin, already compared with the file's size.

    Raises:
        CheckpointError: as `recovered_zip`.
    """
    mapped = torch.from_numpy(np.memmap(path, dtype=np.uint8, mode="c"))

    def bytes_of(storage: Storage) -> Tensor:
        if storage.key not in places:
            raise damaged(path, f"it has no bytes for storage {quoted(storage.key)}")
        return mapped[places[storage.key] : places[storage.key] + storage.stored_bytes]

    return _recovered(path, "torch-legacy", contents, bytes_of)


def read_bare_pickle(path: Path, max_memory: int | None = None) -> RawCheckpoint:
    """The tensors in a pickle that torch did not write: `pickle.dump(model.state_dict(), file)`, or numpy arrays.

    Raises:
        CheckpointError: broken, or without tensors; the sentence names the classes it calls for.
        MemoryBudgetError: the file is larger than `max_memory`.
    """
    file_bytes = path.stat().st_size
    allowed = MAX_BARE_BYTES if max_memory is None else min(max_memory, MAX_BARE_BYTES)
    if file_bytes > allowed:
        raise MemoryBudgetError(
            f"{quoted(path)} needs {file_bytes} bytes", f"a bare pickle is read as a whole and {allowed} are allowed"
        )
    with path.open("rb") as file:
        stream = io.BytesIO(file.read(allowed))
    try:
        contents = read_pickle(stream)
    except NotAPickle as error:
        raise CheckpointError(
            f"{quoted(path)} begins like a pickle but is broken", str(error), "download it again"
        ) from None
    behind, rest = _pickles_behind(stream)

    def bytes_of(storage: Storage) -> Tensor:
        raise damaged(path, f"it has no bytes for storage {quoted(storage.key)}")

    # Whoever opens the file may open all of its pickles, one after the other.
    foreign = sorted({name for one in (contents, *behind) for name in foreign_names(one)})
    tree = traced_tree(path, contents, bytes_of)
    if isinstance(tree, dict | list):
        note = f"a bare pickle of {listed(foreign)}, which was not opened: its tensors were read from its bytes"
        stored = tensors_in_tree(path, "pickle", tree, (note,) if foreign else ())
        if stored.specs:
            return stored
    raise _without_tensors(path, 1 + len(behind), foreign, rest)


def _pickles_behind(stream: io.BytesIO) -> tuple[list[Contents], int]:
    """The pickles that follow in the same file, and how many bytes behind them are none, or were not looked at."""
    found: list[Contents] = []
    left, at = MAX_INSTRUCTIONS, stream.tell()
    while len(found) < MOST_BEHIND and at < len(stream.getbuffer()):
        try:
            found.append(read_pickle(stream, left))
        except NotAPickle:
            break
        left, at = left - found[-1].instructions, stream.tell()
    return found, len(stream.getbuffer()) - at


def _without_tensors(path: Path, pickles: int, foreign: list[str], rest: int) -> CheckpointError:
    """The sentence for pickles without tensors; that opening them would run code is said only where it would."""
    what = "is a bare pickle" if pickles == 1 else f"is {pickles} bare pickles, one behind the other,"
    why = "no tensor stands in it" + (f", and {rest} bytes behind it were not followed" if rest else "")
    listing = "'curvlab list formats' shows what can be read"
    if not foreign:
        return CheckpointError(f"{quoted(path)} {what} of plain values", why, f"give a file of weights; {listing}")
    return CheckpointError(
        f"{quoted(path)} {what} of {listed(foreign)}",
        f"{why}, and opening it would run code from the file, which curvlab never does",
        f"where you trust it, save the weights alone with torch.save(model.state_dict(), path); {listing}",
    )


def zip_storages(path: Path, archive: ZipBytes, folder: str) -> Bytes:
    """Storages by key, from the entries of a folder of the archive."""

    def bytes_of(storage: Storage) -> Tensor:
        size = archive.size(folder + storage.key)
        if size is None:
            raise damaged(path, f"it has no bytes for storage {quoted(storage.key)}")
        if size < storage.stored_bytes:
            raise damaged(path, f"storage {quoted(storage.key)} has {size} bytes instead of {storage.stored_bytes}")
        return archive[folder + storage.key]

    return bytes_of


def _recovered(
    path: Path, name: str, contents: Contents, bytes_of: Bytes, notes: tuple[str, ...] = ()
) -> RawCheckpoint:
    foreign = sorted(set(foreign_names(contents)))
    tree = traced_tree(path, contents, bytes_of)
    if isinstance(tree, dict | list):
        note = f"the pickle calls for {listed(foreign)}, which was not opened: its tensors were read beside it"
        stored = tensors_in_tree(path, name, tree, (note, *notes) if foreign else notes)
        if stored.specs:
            return stored
    raise refused_classes(path, foreign) if foreign else damaged(path, "no tensor stands in it")
