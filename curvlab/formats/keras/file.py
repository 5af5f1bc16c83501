"""Keras 3 models (.keras): a zip of config.json, metadata.json and model.weights.h5, of which only these are read."""

from __future__ import annotations

import io
import struct
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from curvlab.errors import CheckpointError
from curvlab.formats.hdf5.chunks import Opener
from curvlab.formats.hdf5.file import KerasCheckpoint, stored_of
from curvlab.formats.hdf5.outline import MAX_TEXT_BYTES, outline
from curvlab.formats.zip_archive import check_entry, open_archive, read_entry
from curvlab.quoting import listed, quoted

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"


def read_keras(path: Path, max_memory: int | None = None) -> KerasCheckpoint:
    """Names, shapes and lazy tensors of one .keras file, converted to torch's layouts, and its description.

    Raises:
        CheckpointError: a dishonest or damaged archive, no weights in HDF5, or weights that are not safe to read.
    """
    with open_archive(path, max_memory) as archive:
        names = archive.namelist()
        if WEIGHTS not in names:
            raise CheckpointError(
                f"{quoted(path)} is a Keras model without {WEIGHTS}",
                f"it holds {listed(names)}",
                "save it again with model.save(path)",
            )
        for name in (CONFIG, METADATA):
            if name in names and archive.getinfo(name).file_size > MAX_TEXT_BYTES:
                size = archive.getinfo(name).file_size
                raise CheckpointError(
                    f"{quoted(path)} is a Keras model that is not safe to read",
                    f"its {name} of {size} bytes is longer than any network's",
                    "get the model from its author again",
                )
        config = read_entry(path, archive, CONFIG, MAX_TEXT_BYTES) if CONFIG in names else None
        source = _weights(path, archive)
    found = outline(path, source)
    text = None if config is None else config.decode("utf-8", "replace")
    stored = stored_of(path, found, source, "keras", text, max_memory)
    return replace(stored, plain=stored.plain and set(names) <= {CONFIG, METADATA, WEIGHTS})


def _weights(path: Path, archive: zipfile.ZipFile) -> Opener:
    """Gives a stream over the weights: a part of the archive where they are stored as they are, as Keras does."""
    entry = archive.getinfo(WEIGHTS)
    if entry.compress_type != zipfile.ZIP_STORED:
        content = read_entry(path, archive, WEIGHTS, entry.file_size)
        return lambda: io.BytesIO(content)
    check_entry(path, archive, WEIGHTS)
    with path.open("rb") as file:
        file.seek(entry.header_offset)
        header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise CheckpointError(f"{quoted(path)} is a broken zip archive", "an entry's header is missing")
    name_bytes, extra_bytes = struct.unpack_from("<HH", header, 26)
    begin = entry.header_offset + 30 + name_bytes + extra_bytes
    part: Any = _Part  # typed as a stream of bytes by its methods, not by its bases
    return lambda: io.BufferedReader(part(path, begin, entry.file_size), 2**16)


class _Part(io.RawIOBase):
    """Bytes `begin` to `begin + size` of a file, as a file of its own."""

    def __init__(self, path: Path, begin: int, size: int) -> None:
        super().__init__()
        self.file = path.open("rb", buffering=0)
        self.begin, self.size, self.position = begin, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.position = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size}[whence])
        return self.position

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        view = memoryview(buffer)[: max(0, self.size - self.position)]
        self.file.seek(self.begin + self.position)
        count = self.file.readinto(view) if len(view) else 0
        self.position += count or 0
        return count or 0

    def close(self) -> None:
        self.file.close()
        super().close()
