"""Untrusted zip files: opened only after their table of contents is known to be consistent and small.

What is checked with Python's reader is read again by others, torch's miniz above all, which looks entries up without
regard to case and believes other fields. So an archive that two readers could understand differently is refused.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from curvlab.errors import CheckpointError
from curvlab.formats.zip_directory import broken, check_directory, refused
from curvlab.quoting import quoted, reason

# Float weights hardly compress; even a network that is mostly zeros stays below this. A bomb is a thousand and more.
MAX_EXPANSION = 32
FREE_EXPANSION_BYTES = 2**20
ENCRYPTED, UTF8 = 0x1, 0x800
_PIECE = 2**20


def open_archive(path: Path, max_memory: int | None = None, content: bytes | None = None) -> zipfile.ZipFile:
    """The archive, once its entries are known to have plain unique names, no encryption, no overlap and honest sizes.

    Args:
        path: a file that begins like a zip.
        max_memory: bytes that all compressed entries together may inflate to; entries stored as they are cost nothing.
        content: an archive that is an entry of `path`, to be opened instead.

    Raises:
        CheckpointError: any of the checks fails; nothing has been inflated then.
    """
    with path.open("rb") if content is None else io.BytesIO(content) as file:
        file_bytes = check_directory(path, file)
    try:
        archive = zipfile.ZipFile(path if content is None else io.BytesIO(content))
    except (zipfile.BadZipFile, ValueError, struct.error, NotImplementedError, OverflowError) as error:
        raise broken(path, reason(error)) from None
    try:
        _check_entries(path, archive.infolist(), file_bytes, max_memory)
    except CheckpointError:
        archive.close()
        raise
    if without_checksums(archive):
        for entry in archive.infolist():
            entry.CRC = None  # type: ignore[assignment]  # Python's reader then compares none
    return archive


def without_checksums(archive: zipfile.ZipFile) -> bool:
    """Whether it was written without any, as `torch.serialization.set_crc32_options(False)` does."""
    return not any(entry.CRC for entry in archive.infolist() if entry.file_size)


def checksum_notes(archive: zipfile.ZipFile) -> tuple[str, ...]:
    """What the user is told of an archive without checksums."""
    if not without_checksums(archive):
        return ()
    return ("the file has no checksums: damage to its weights would not be noticed",)


def inner_names(names: Iterable[str]) -> frozenset[str]:
    """Names below the one folder of an archive, which is how torch writes; none where there are several."""
    plain = set(names)
    roots = {name.split("/", 1)[0] for name in plain}
    return frozenset(name.split("/", 1)[-1] for name in plain) if len(roots) == 1 else frozenset()


def read_entry(path: Path, archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """The inflated bytes of one entry of at most `limit` bytes, compared with their checksum."""
    if archive.getinfo(name).file_size > limit:
        raise refused(path, f"its entry {quoted(name)} is larger than {limit} bytes")
    with _opened(path, archive, name) as entry:
        return entry.read(limit + 1)


def check_entry(path: Path, archive: zipfile.ZipFile, name: str) -> None:
    """Compare an entry with its checksum, in pieces.

    Raises:
        CheckpointError: it has another one, or cannot be read.
    """
    with _opened(path, archive, name) as entry:
        while entry.read(_PIECE):
            pass


@contextmanager
def _opened(path: Path, archive: zipfile.ZipFile, name: str) -> Iterator[IO[bytes]]:
    """The entry as a stream, which compares the checksum when it is read to its end."""
    try:
        with archive.open(name) as entry:
            yield entry
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError, zlib.error) as error:
        if str(error).startswith("Bad CRC-32"):
            raise wrong_checksum(path, name) from None
        raise refused(path, f"its entry {quoted(name)} cannot be read ({reason(error)})") from None


def wrong_checksum(path: Path, name: str) -> CheckpointError:
    """The sentence for bytes that are not those that were written."""
    return CheckpointError(
        f"{quoted(path)} is damaged",
        f"its entry {quoted(name)} has another checksum than was written for it",
        "download or copy it again",
    )


def _check_entries(path: Path, entries: list[zipfile.ZipInfo], file_bytes: int, max_memory: int | None) -> None:
    names: dict[bytes, str] = {}
    for entry in entries:
        name = entry.filename
        parts = name.removesuffix("/").split("/")
        if name.startswith("/") or ".." in parts or "\\" in name:
            raise refused(path, f"its entry {quoted(name)} points out of the archive")
        # Python cuts a name at a zero byte, and takes another one from a field that other readers do not look at.
        if name != entry.orig_filename or "" in parts or "." in parts:
            raise refused(
                path, f"its entry {quoted(entry.orig_filename)} has a name that readers understand differently"
            )
        if entry.flag_bits & ENCRYPTED:
            raise refused(path, f"its entry {quoted(name)} is encrypted")
        if _large_fields(entry.extra) > 1:
            raise refused(path, f"its entry {quoted(name)} gives its size and place twice")
        key = _looked_up(name, entry.flag_bits)
        if key in names:
            raise refused(path, _twice(names[key], name))
        names[key] = name
    if sum(entry.compress_size for entry in entries) > file_bytes:
        raise refused(path, "its entries overlap")
    if any(entry.compress_type == zipfile.ZIP_STORED and entry.compress_size != entry.file_size for entry in entries):
        raise refused(path, "an entry that is not compressed claims another size than it has")
    inflated = sum(entry.file_size for entry in entries if entry.compress_type != zipfile.ZIP_STORED)
    if inflated > FREE_EXPANSION_BYTES + MAX_EXPANSION * file_bytes:
        raise refused(path, f"its {file_bytes} bytes would inflate to {inflated}, as a zip bomb does")
    if max_memory is not None and inflated > max_memory:
        raise refused(path, f"it would inflate to {inflated} bytes, beyond the {max_memory} that --max-memory allows")


def _looked_up(name: str, flags: int) -> bytes:
    """The bytes by which miniz finds an entry: as they stand in the file, ASCII letters made small."""
    return name.encode("utf-8" if flags & UTF8 else "cp437").lower()


def _large_fields(extra: bytes) -> int:
    """How many fields give the sizes and the place of a large entry: readers differ in which they take."""
    count = at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, at)
        count += kind == 1
        at += 4 + size
    return count


def _twice(first: str, second: str) -> str:
    if first == second:
        return f"its entry {quoted(first)} stands in it twice"
    return f"its entries {quoted(first)} and {quoted(second)} are one name to readers that do not tell case"
