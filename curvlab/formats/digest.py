"""SHA-256 of model files, read in blocks: 2 GB take the memory of one block."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path


def sha256(files: Sequence[Path]) -> str:
    """The hash of one file; of several, the hash of the lines `"<hash>  <name>\\n"`, as `sha256sum` prints them.

    Raises:
        OSError: a file can no longer be read.
    """
    hashes = [_of_file(file) for file in files]
    if len(files) == 1:
        return hashes[0]
    lines = (f"{digest}  {file.name}\n" for digest, file in zip(hashes, files, strict=True))
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _of_file(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
