"""The table of contents of an untrusted zip file: where it is and how large, before any reader takes it in."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import BinaryIO

from curvlab.errors import CheckpointError
from curvlab.quoting import quoted

# Python reads the whole table of contents at once: 32 MiB are about 400,000 entries and a few seconds.
MAX_DIRECTORY_BYTES = 32 * 2**20
_END, _END64, _LOCATOR64 = 22, 56, 20  # bytes of the end record, and of the two before it in large archives


def check_directory(path: Path, file: BinaryIO, most: int = MAX_DIRECTORY_BYTES) -> int:
    """The size of the file, once its end record, and in large archives the record before it, say that the table of
    contents ends where they begin and takes at most `most` bytes.

    Readers differ in which of these numbers they believe: one that goes by the place given and one that counts back
    from the end would read two tables.

    Raises:
        CheckpointError: it is none of these.
    """
    file_bytes = file.seek(0, io.SEEK_END)
    tail_bytes = min(file_bytes, 65535 + _END + _LOCATOR64 + _END64)
    file.seek(file_bytes - tail_bytes)
    tail = file.read(tail_bytes)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + _END > len(tail):
        raise broken(path, f"its end is missing: it was cut off ({file_bytes} bytes)")
    size, begin = struct.unpack_from("<II", tail, at + 12)
    if at >= _LOCATOR64 and tail[at - _LOCATOR64 :].startswith(b"PK\x06\x07"):
        (given,) = struct.unpack_from("<Q", tail, at - _LOCATOR64 + 8)
        at -= _LOCATOR64 + _END64
        if at < 0 or not tail[at:].startswith(b"PK\x06\x06") or given != file_bytes - tail_bytes + at:
            raise refused(path, "its two end records do not fit together")
        size, begin = struct.unpack_from("<QQ", tail, at + 40)
    if size > most:
        raise refused(path, f"its table of contents has {size:,} bytes, beyond the {most:,} that are read")
    if begin + size != file_bytes - tail_bytes + at:
        raise refused(path, "its table of contents is not where its end record says")
    return file_bytes


def broken(path: Path, why: str) -> CheckpointError:
    """The error for an archive that was damaged."""
    return CheckpointError(f"{quoted(path)} begins like a zip archive but is broken", why, "download or copy it again")


def refused(path: Path, why: str) -> CheckpointError:
    """The error for an archive that was made to be read in two ways, or to take all memory."""
    return CheckpointError(
        f"{quoted(path)} is a zip archive that is not safe to read", why, "get the file from its author again"
    )
