"""Files and folders of a run, opened only as themselves: no link is followed, nothing but a regular file is opened.

A run's folder may come from another person. A link in it called `metrics.jsonl`, or a second name of a file elsewhere
(a hard link), would let an ordinary write change that file.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import IO

from curvlab.errors import CheckpointError
from curvlab.quoting import quoted

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_MODES = {os.O_RDONLY: "rb", os.O_RDWR: "r+b", os.O_WRONLY: "wb"}


def plain_folder(path: Path) -> None:
    """Do nothing when `path` is a folder or is not there.

    Raises:
        CheckpointError: it is a link, also one to a folder, or something else.
    """
    mode = _mode(path)
    if mode is not None and not stat.S_ISDIR(mode):
        raise CheckpointError(f"{quoted(path)} is not a folder", do="choose another --out")


def plain_file(path: Path) -> bool:
    """True when `path` is a regular file with one name, False when nothing is there.

    Raises:
        CheckpointError: it is a link, a file with a second name, or no file.
    """
    return _mode(path) is not None and _checked(path, path.lstat())


def opened(path: Path, flags: int) -> IO[bytes]:
    """`path` opened with these flags of `os.open`, once what is open is known to be a regular file with one name.

    Raises:
        CheckpointError: it is a link, a file with a second name, or no file.
        OSError: it cannot be opened.
    """
    _mode(path)
    # Without O_NONBLOCK a named pipe would wait for its other end. Windows has neither of the two flags.
    kept = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags | kept, 0o666)
    try:
        _checked(path, os.fstat(descriptor))
        return os.fdopen(descriptor, _MODES[flags & (os.O_RDONLY | os.O_WRONLY | os.O_RDWR)])
    except BaseException:
        os.close(descriptor)
        raise


def _mode(path: Path) -> int | None:
    """The type of what is at `path`, None where nothing is; a link is an error."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"{quoted(path)} cannot be reached", str(error.strerror), "check the path") from error
    if stat.S_ISLNK(mode):
        why = "a run follows no links, since they may lead anywhere"
        raise CheckpointError(
            f"{quoted(path)} is a link to {quoted(path.readlink())}", why, "put what it leads to in its place"
        )
    return mode


def _checked(path: Path, found: os.stat_result) -> bool:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "a special file")
        raise CheckpointError(f"{quoted(path)} is {kind}", "a run reads and writes regular files alone", "remove it")
    if found.st_nlink > 1:
        why = "what is written to it would appear there too"
        raise CheckpointError(f"{quoted(path)} has another name elsewhere (a hard link)", why, "copy the folder")
    return True
