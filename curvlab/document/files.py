"""Writing a report so that a reader never sees half of it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from curvlab.errors import CurvlabError


def write(text: str, path: Path) -> None:
    """`text` in the file `path`, replaced in one step; a pipe or a device is written to directly.

    Raises:
        CurvlabError: when it cannot be written; an older file is then as it was.
    """
    try:
        target = path.resolve()
        if target.exists() and not target.is_file():
            target.write_text(text, encoding="utf-8")
            return
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name[:100]}.", dir=target.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
                file.write(text)
            Path(name).chmod(_mode(target))
            Path(name).replace(target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CurvlabError(f"'{path}' cannot be written", str(error.strerror), "choose another path") from error


def _mode(target: Path) -> int:
    """The permissions of the file that is replaced, or those that any new file gets."""
    if target.exists():
        return target.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
