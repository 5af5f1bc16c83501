"""Weights that stand in a file beside the model: only plain relative paths inside the model's own directory are opened.

A path must not be absolute, climb (`..`), pass through a link or end at a hard link, which would be a file from
outside under a name in the folder (as in CVE-2026-34446); offset and length must lie within the file, and the length
must be what the tensor's shape and type need. Nothing is allocated before all of that is known.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from curvlab.errors import CheckpointError
from curvlab.formats.paths import HARD_LINK
from curvlab.quoting import quoted


@dataclass(frozen=True)
class ExternalBytes:
    """A run of bytes in a file that was checked; it is read when asked for."""

    path: Path
    offset: int
    length: int
    identity: tuple[int, ...]

    def read(self) -> bytearray:
        """The bytes.

        Raises:
            CheckpointError: the file is no longer the one that was checked.
        """
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
        with os.fdopen(os.open(self.path, flags), "rb") as file:
            content = bytearray(self.length)
            file.seek(self.offset)
            if _identity(os.fstat(file.fileno())) != self.identity or file.readinto(content) != self.length:
                raise CheckpointError(f"{quoted(self.path)} changed while it was being read", do="load it again")
        return content


def external_bytes(entries: Any, directory: Path, name: str, needed: int) -> ExternalBytes:
    """Where the tensor `name`, which needs so many bytes, stands.

    Args:
        entries: the tensor's `external_data`: keys and values as text.
        directory: the model's own.
        name: for the message.
        needed: bytes that its shape and type ask for.

    Raises:
        CheckpointError: the place is outside the model's directory, is no regular file, or has not these bytes.
    """
    told = {entry.key: entry.value for entry in entries}
    if any(isinstance(value, bytes) for value in told.values()):
        raise _refused(name, "its place is not text")
    location = told.get("location", "")
    path, found = _inside(directory, location, name)
    offset, length = _count(told.get("offset", "0"), name), _count(told.get("length", str(needed)), name)
    if length != needed:
        raise _refused(name, f"its length is given as {length} bytes, its shape needs {needed}")
    if offset + length > found.st_size:
        raise _refused(name, f"bytes {offset} to {offset + length} of {quoted(location)}, which has {found.st_size}")
    return ExternalBytes(path, offset, length, _identity(found))


def _identity(found: os.stat_result) -> tuple[int, ...]:
    """What tells a file from another that took its place: device, number and the count of its names."""
    return found.st_dev, found.st_ino, found.st_nlink


def _inside(directory: Path, location: str, name: str) -> tuple[Path, os.stat_result]:
    """The file at a location, and what the system says of it."""
    parts = PurePosixPath(location).parts
    foreign = PureWindowsPath(location)
    if not parts or "\0" in location or "\\" in location or foreign.drive or location.startswith("/"):
        raise _refused(name, f"{quoted(location)} is no plain path below the model's own folder")
    if ".." in parts:
        raise _refused(name, f"{quoted(location)} has '..' in it, and only plain paths below its folder are followed")
    path = directory
    for part in parts:
        path = path / part
        try:
            found = path.lstat()
        except OSError:
            raise _refused(name, f"{quoted(location)} is not there", "put the file back beside the model") from None
        if stat.S_ISLNK(found.st_mode):
            raise _refused(name, f"{quoted(location)} is a link", "put the file itself beside the model")
    if not stat.S_ISREG(found.st_mode):
        raise _refused(name, f"{quoted(location)} is no regular file")
    if found.st_nlink > 1:
        raise _refused(name, f"{quoted(location)} {HARD_LINK}", "put a copy of the file beside the model")
    return path, found


def _count(text: str, name: str) -> int:
    # Numbers of a few digits only: Python takes long to read very long ones.
    if not text.isascii() or not text.isdecimal() or len(text) > 19:
        raise _refused(name, f"its place {quoted(text)} is not a number of bytes")
    return int(text)


class ExternalDataError(CheckpointError):
    """Weights beside the model that cannot be read; the model itself may be in order."""


def _refused(name: str, why: str, do: str = "") -> ExternalDataError:
    return ExternalDataError(f"the external data of tensor {quoted(name)} cannot be read", why, do)
