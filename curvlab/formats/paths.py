"""What a path must be before anything is opened: a regular file with bytes in it, or a directory."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from curvlab.errors import CheckpointError
from curvlab.quoting import quoted

HARD_LINK = "has a second name elsewhere (a hard link), so that it may be a file from outside of the model's folder"
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def existing(path: Path) -> Path:
    """`path`, once it is known to lead to a regular file or a directory; nothing is opened, so a pipe cannot block.

    Raises:
        CheckpointError: missing, a dangling link, a loop of links, a pipe, a device.
    """
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - the error number below needs the bare call
    except ValueError:
        raise CheckpointError(f"{quoted(path)} is not a possible file name") from None
    except OSError as error:
        raise CheckpointError(_missing(path, error.errno), do="check the path") from None
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "a special file")
        raise CheckpointError(
            f"{quoted(path)} is {kind}, not a regular file", do="save the model to a file and give that"
        )
    return path


def regular_file(path: Path) -> Path:
    """`path`, once it is known to be a regular file that is not empty.

    Raises:
        CheckpointError: as `existing`, or a directory, or an empty file.
    """
    existing(path)
    if path.is_dir():
        raise CheckpointError(f"{quoted(path)} is a directory, not a model file")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{quoted(path)} is empty", do="download or copy it again")
    return path


def stays_inside(file: Path, directory: Path) -> Path:
    """`file`, once it is known to lie in `directory`, or in `blobs/` as the Hugging Face cache lays models out.

    For every file that was named by another file or found in a folder, and not by the user.

    Raises:
        CheckpointError: it is a link to somewhere else, or a hard link, which is another file's content under a name
            in the folder.
    """
    here, target = directory.resolve(), file.resolve()
    if target.parent not in {here, here.parent.parent / "blobs"}:
        raise CheckpointError(f"{quoted(file)} is a link out of the model's folder", do="put the file itself there")
    if target.stat().st_nlink > 1:
        raise CheckpointError(f"{quoted(file)} {HARD_LINK}", do="put a copy of the file there")
    return file


def _missing(path: Path, number: int | None) -> str:
    if number == errno.ELOOP:
        return f"{quoted(path)} is a loop of links"
    if number != errno.ENOENT:
        return f"{quoted(path)} cannot be reached ({os.strerror(number or 0)})"
    if path.is_symlink():
        return f"{quoted(path)} is a link to {quoted(path.readlink())}, which does not exist"
    return f"{quoted(path)} does not exist"
