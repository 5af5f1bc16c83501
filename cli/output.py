"""Where things go: the result to stdout or a file, everything else to stderr."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from curvlab.errors import CommandError, CurvlabError

if TYPE_CHECKING:
    from rich.console import Console

STDOUT = "-"
WIDEST, NARROWEST = 400, 40
"""Columns of a report: the terminal's, or what COLUMNS says, within these limits."""
UNKNOWN = 100
"""Columns where there is no terminal and COLUMNS says nothing."""


def check_target(path: str | None, option: str) -> None:
    """Refuse, before any work, a file that could not be written after it.

    Raises:
        CommandError: when the folder is missing or closed, or the path is a folder.
    """
    if path is None or path == STDOUT:
        return
    target = Path(path)
    if target.is_dir():
        raise CommandError(f"{option} '{path}' is a folder", "the name of a file was expected")
    if not target.parent.is_dir():
        raise CommandError(f"{option} '{path}' is in a folder that does not exist", do=f"make '{target.parent}' first")
    if not os.access(target.parent, os.W_OK) and not target.exists():
        raise CommandError(f"{option} '{path}' is in a folder that cannot be written to", do="choose another path")


def deliver(text: str, path: str | None = STDOUT) -> None:
    """`text` to stdout for '-', to the file otherwise; nothing for None.

    A reader that closes the pipe early has seen enough: the rest is dropped and the run goes on to its own end.
    """
    if path is None or (path == STDOUT and sys.stdout is None):
        return
    if path != STDOUT:
        from curvlab.document.files import write

        write(text, Path(path))
        return
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        # What is left in its buffer goes nowhere: it would fail again, with code 120, when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise CurvlabError("the result cannot be written to stdout", str(error.strerror)) from error


def show(render: Callable[[Console], None]) -> None:
    """What `render` prints, to stdout: with colours on a terminal (unless NO_COLOR is set), plain elsewhere."""
    from rich.console import Console

    text = io.StringIO()  # rich ends the process when a pipe breaks, so it never gets to write to one
    terminal = sys.stdout is not None and sys.stdout.isatty()
    console = Console(file=text, force_terminal=terminal, highlight=False, markup=False, emoji=False)
    told = terminal or os.environ.get("COLUMNS", "").isdecimal()  # which rich reads itself
    console.width = max(NARROWEST, min(WIDEST, console.width)) if told else UNKNOWN
    render(console)
    deliver(text.getvalue())


def say(sentence: str) -> None:
    """One line on stderr."""
    from curvlab.quoting import printable

    print(f"curvlab: {printable(sentence)}", file=sys.stderr, flush=True)
