"""How long the strings of an HDF5 file can be, learned before libhdf5 reads one.

The length of a string of variable length stands beside the string, in a collection that begins with a mark. One string
may be pointed to a million times, and a damaged collection leads libhdf5 in a circle, so each is followed here first.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO

from curvlab.errors import CheckpointError
from curvlab.formats.hdf5.chunks import Opener
from curvlab.quoting import quoted

ENDLESS = 2**63
# Far more than names of layers; what is there only to be followed is not.
_MAX_STRINGS = 500_000


def measured(path: Path, source: Opener) -> tuple[int, int]:
    """Size of the file, and of the largest of its collections of strings: none of its strings can be longer.

    Raises:
        CheckpointError: it does not begin as every HDF5 file that h5py or Keras wrote.
    """
    stream = source()
    with stream.open("rb") if isinstance(stream, Path) else stream as file:
        bytes_of = _Bytes(file)
        _check_beginning(path, bytes_of.at(0, 16))
        return bytes_of.size, _largest_collection(bytes_of)


class _Bytes:
    """A file as a row of bytes of which no more than a block is in memory."""

    BLOCK = 2**20

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.size = file, file.seek(0, io.SEEK_END)

    def at(self, begin: int, count: int) -> bytes:
        """Up to `count` bytes."""
        self.file.seek(begin)
        return self.file.read(count)

    def find(self, mark: bytes, begin: int) -> int:
        """Where the mark stands next, or -1."""
        while begin < self.size:
            found = self.at(begin, self.BLOCK + len(mark) - 1).find(mark)
            if found >= 0:
                return begin + found
            begin += self.BLOCK
        return -1


def _check_beginning(path: Path, head: bytes) -> None:
    # Offsets and lengths of eight bytes: all there is in practice, and what is looked for below relies on it.
    sizes = head[9:11] if head[8:9] >= b"\x02" else head[13:15]
    if not head.startswith(b"\x89HDF\r\n\x1a\n") or sizes != b"\x08\x08":
        raise CheckpointError(
            f"{quoted(path)} is a damaged HDF5 file", "its first bytes are wrong", "download or copy it again"
        )


def _largest_collection(file: _Bytes) -> int:
    """Bytes of the largest collection of strings; beyond all bounds where one is malformed.

    libhdf5 (2.0) never comes back from a collection whose free space is said to be empty, so each is followed here
    first, the way that the library will follow it.
    """
    mark = b"GCOL\x01"
    largest, at, steps = 0, file.find(mark, 0), 0
    while at >= 0:
        size = int.from_bytes(file.at(at + 8, 8), "little")
        position, end = at + 16, min(at + size, file.size)
        while position + 16 <= end:
            head = file.at(position, 16)
            length = int.from_bytes(head[8:], "little")
            step = length if head[:2] == b"\0\0" else 16 + (length + 7) // 8 * 8
            steps += 1
            if step < 16 or position + step > end or steps > _MAX_STRINGS:
                return ENDLESS
            position += step
        largest, at = max(largest, size), file.find(mark, at + 1)
    return largest
