"""Whole files: written beside their place, flushed to disk and renamed, so that they are there completely or not."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from curvlab.errors import CheckpointError
from curvlab.quoting import quoted, reason


@contextmanager
def whole_file(path: Path, what: str = "") -> Iterator[Path]:
    """The path to write to, which takes the place of `path` when the block ends without an error.

    Whoever is killed meanwhile, or loses power, leaves the older file as it was.

    Args:
        path: where the file is to be.
        what: it is, for the message ("the state").

    Raises:
        CheckpointError: it cannot be written.
    """
    # The name cannot be guessed and must be new: a link left under a known name would be followed by the write.
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    try:
        os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield beside
        with beside.open("r+b") as file:  # Windows flushes only what is open for writing
            os.fsync(file.fileno())
        beside.replace(path)
        _flush_folder(path.parent)
    except Exception as error:
        # The safetensors library hides the system's errors in one of its own.
        if not isinstance(error, OSError) and not type(error).__module__.startswith("safetensors"):
            raise
        raise CheckpointError(f"{what} {quoted(path)} cannot be written".lstrip(), reason(error)) from error
    finally:
        with suppress(OSError):
            beside.unlink()


def _flush_folder(folder: Path) -> None:
    """Makes the rename last through a power failure, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
