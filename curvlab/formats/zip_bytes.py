"""The entries of a vetted zip as bytes in memory: mapped from the file where they are stored as they are."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from curvlab.formats.zip_archive import checksum_notes, open_archive, read_entry, wrong_checksum
from curvlab.formats.zip_directory import refused
from curvlab.quoting import quoted

_PIECE = 2**20
_HEADER = 30  # bytes before an entry's own name; the lengths of name and extra field are its last four


class ZipBytes:
    """`content[name]` is an entry as a uint8 tensor; its bytes are compared with their checksum when it is asked for.

    Args:
        path: of the archive.
        max_memory: as of `open_archive`.

    Raises:
        CheckpointError: the archive is not one that is safe to read.
    """

    def __init__(self, path: Path, max_memory: int | None = None) -> None:
        self.path = path
        with open_archive(path, max_memory) as archive:
            self.entries: dict[str, zipfile.ZipInfo] = {entry.filename: entry for entry in archive.infolist()}
            self.notes = checksum_notes(archive)
        self._checked: set[str] = set()
        self._mapped = torch.from_numpy(np.memmap(path, dtype=np.uint8, mode="c"))  # changes stay in memory

    def size(self, name: str) -> int | None:
        """Bytes of an entry; None where there is none."""
        return self.entries[name].file_size if name in self.entries else None

    def __getitem__(self, name: str) -> Tensor:
        entry = self.entries[name]
        if entry.compress_type != zipfile.ZIP_STORED:
            return _tensor(self.read(name, entry.file_size))
        header = bytes(self._mapped[entry.header_offset : entry.header_offset + _HEADER].numpy())
        begin = entry.header_offset + _HEADER
        if len(header) == _HEADER:
            begin += int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        if header[:4] != b"PK\x03\x04" or begin + entry.file_size > len(self._mapped):
            raise refused(self.path, f"its entry {quoted(name)} is not where its table of contents says")
        self._check(entry, begin)
        return self._mapped[begin : begin + entry.file_size]

    def _check(self, entry: zipfile.ZipInfo, begin: int) -> None:
        """Compare the checksum, reading past the mapped memory so that its pages do not stay resident."""
        if self.notes or entry.filename in self._checked:
            return
        found, left = 0, entry.file_size
        with self.path.open("rb") as file:
            file.seek(begin)
            while left and (piece := file.read(min(left, _PIECE))):
                found, left = zlib.crc32(piece, found), left - len(piece)
        if found != entry.CRC:
            raise wrong_checksum(self.path, entry.filename)
        self._checked.add(entry.filename)

    def read(self, name: str, limit: int) -> bytes:
        """The bytes of an entry of at most `limit` bytes, checked against its checksum."""
        with open_archive(self.path) as archive:
            return read_entry(self.path, archive, name, limit)


def _tensor(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)
