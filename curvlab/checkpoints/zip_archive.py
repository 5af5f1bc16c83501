"""Zip files from strangers: opened only after their table of contents is known to be honest and small."""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from curvlab.checkpoints.quoting import quoted, reason
from curvlab.errors import CheckpointError

# Python reads the whole table of contents at once: 32 MiB are about 400,000 entries and a few seconds.
MAX_DIRECTORY_BYTES = 32 * 2**20
# Float weights hardly compress; even a network that is mostly zeros stays below this. A bomb is a thousand and more.
MAX_EXPANSION = 32
FREE_EXPANSION_BYTES = 2**20
ENCRYPTED = 0x1


def open_archive(path: Path, max_memory: int | None = None) -> zipfile.ZipFile:
    """The archive, once its entries are known to have plain unique names, no encryption, no overlap and honest sizes.

    Args:
        path: a file that begins like a zip.
        max_memory: bytes that all compressed entries together may inflate to; entries stored as they are cost nothing.

    Raises:
        CheckpointError: any of the checks fails; nothing has been inflated then.
    """
    file_bytes = path.stat().st_size
    with path.open("rb") as file:
        if _directory_bytes(file, file_bytes) > MAX_DIRECTORY_BYTES:
            raise _refused(path, "its table of contents is absurdly large")
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError, struct.error, NotImplementedError, OverflowError) as error:
        raise CheckpointError(
            f"{quoted(path)} begins like a zip archive but is broken", reason(error), "download or copy it again"
        ) from None
    try:
        _check_entries(path, archive.infolist(), file_bytes, max_memory)
    except CheckpointError:
        archive.close()
        raise
    return archive


def read_entry(path: Path, archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """The inflated bytes of one entry of at most `limit` bytes."""
    if archive.getinfo(name).file_size > limit:
        raise _refused(path, f"its entry {quoted(name)} is larger than {limit} bytes")
    try:
        with archive.open(name) as entry:
            return entry.read(limit + 1)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError, zlib.error) as error:
        raise _refused(path, f"its entry {quoted(name)} cannot be read ({reason(error)})") from None


def _check_entries(path: Path, entries: list[zipfile.ZipInfo], file_bytes: int, max_memory: int | None) -> None:
    names = set()
    for entry in entries:
        pure = PurePosixPath(entry.filename)
        if pure.is_absolute() or ".." in pure.parts or "\\" in entry.filename:
            raise _refused(path, f"its entry {quoted(entry.filename)} points out of the archive")
        if entry.flag_bits & ENCRYPTED:
            raise _refused(path, f"its entry {quoted(entry.filename)} is encrypted")
        if entry.filename in names:
            raise _refused(path, f"its entry {quoted(entry.filename)} stands in it twice")
        names.add(entry.filename)
    if sum(entry.compress_size for entry in entries) > file_bytes:
        raise _refused(path, "its entries overlap")
    if any(entry.compress_type == zipfile.ZIP_STORED and entry.compress_size != entry.file_size for entry in entries):
        raise _refused(path, "an entry that is not compressed claims another size than it has")
    inflated = sum(entry.file_size for entry in entries if entry.compress_type != zipfile.ZIP_STORED)
    if inflated > FREE_EXPANSION_BYTES + MAX_EXPANSION * file_bytes:
        raise _refused(path, f"its {file_bytes} bytes would inflate to {inflated}, as a zip bomb does")
    if max_memory is not None and inflated > max_memory:
        raise _refused(path, f"it would inflate to {inflated} bytes, beyond the {max_memory} that --max-memory allows")


def _directory_bytes(file: BinaryIO, file_bytes: int) -> int:
    """Size of the table of contents as the end record gives it; 0 when there is no end record (zipfile will say so)."""
    tail_bytes = min(file_bytes, 22 + 65535 + 20)
    file.seek(file_bytes - tail_bytes)
    tail = file.read(tail_bytes)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + 22 > len(tail):
        return 0
    size: int = struct.unpack_from("<I", tail, at + 12)[0]
    if size != 0xFFFFFFFF or at < 20 or tail[at - 20 : at - 16] != b"PK\x06\x07":
        return size if size != 0xFFFFFFFF else file_bytes
    (record,) = struct.unpack_from("<Q", tail, at - 12)
    if record + 56 > file_bytes:
        return 0
    file.seek(record)
    (size64,) = struct.unpack_from("<Q", file.read(56), 40)
    return int(size64)


def _refused(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{quoted(path)} is a zip archive that is not safe to read", why, "get the model from its author again"
    )
