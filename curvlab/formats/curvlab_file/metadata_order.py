"""Equal networks are equal files, byte for byte: the metadata of a safetensors file in alphabetical order."""

from __future__ import annotations

import json
from pathlib import Path


def sort_metadata(path: Path) -> None:
    """Sort the metadata in a header: u64 length, JSON, blanks (the format's own filling), then the tensors' bytes.

    The safetensors library writes metadata in an order of its own that changes from file to file.
    """
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= length:  # the library's own JSON is as short; were it not, its order would stay
            file.seek(8)
            file.write(text.ljust(length))
