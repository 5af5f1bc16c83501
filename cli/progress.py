"""Progress on stderr: bars on a terminal, a line per stage elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .output import say

Progress = Callable[[str, int, int | None], None]
"""report(stage, done, total); total is None where it is not known."""

SECONDS = 10.0
"""A long stage says again how far it is after this time."""


@contextmanager
def progress() -> Iterator[Progress]:
    """A `Progress` for one run; bars vanish when it ends."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal or console.is_dumb_terminal:
        yield lines()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=console, transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int | None) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield report


def lines(clock: Callable[[], float] = time.monotonic) -> Progress:
    """A `Progress` that writes a line when a stage begins, and every `SECONDS` while it lasts."""
    last: dict[str, float] = {}

    def report(stage: str, done: int, total: int | None) -> None:
        now = clock()
        if stage in last and now - last[stage] < SECONDS:
            return
        counted = "" if stage not in last else f" {done}" if total is None else f" {done}/{total}"
        last[stage] = now
        say(f"{stage}{counted}")

    return report
