"""Alternating measurement: every contender once per round, medians over rounds, ratios to the first."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One contender: medians over rounds.

    Attributes:
        name: of the contender.
        seconds: wall time, with all the threads that torch has.
        ratio: wall time relative to the reference of the same round; `spread` is its least and its greatest.
        cpu: seconds that this process computed, on all threads together; other work on the machine does not add to it.
        cpu_ratio: that relative to the reference of the same round.
    """

    name: str
    seconds: float
    ratio: float
    spread: tuple[float, float]
    cpu: float
    cpu_ratio: float


CLOCK: Callable[[], float] = time.perf_counter
"""The clock of training curves; `--cpu-time` of their commands replaces it by `time.process_time`."""


@dataclass(frozen=True)
class Seconds:
    """Wall time, and the time that this process and its children that have ended have computed."""

    wall: float
    cpu: float

    @staticmethod
    def now() -> Seconds:
        """Both clocks."""
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return Seconds(time.perf_counter(), time.process_time() + children.ru_utime + children.ru_stime)

    def __sub__(self, other: Seconds) -> Seconds:
        return Seconds(self.wall - other.wall, self.cpu - other.cpu)


def timed(run: Callable[[], object], wait: Callable[[], object] = lambda: None) -> Seconds:
    """The time of one run. A run that knows better which part of it counts returns its own `Seconds`.

    Args:
        run: what is timed.
        wait: returns when the device has done all it was given.
    """
    wait()
    start = Seconds.now()
    found = run()
    wait()
    return found if isinstance(found, Seconds) else Seconds.now() - start


def alternate(
    contenders: Mapping[str, Callable[[], object]], rounds: int, wait: Callable[[], object] = lambda: None
) -> list[Row]:
    """Run all contenders in turn, `rounds` times after one round of warm-up; the first is the reference of the
    ratios."""
    times: dict[str, list[Seconds]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, run in contenders.items():
            found = timed(run, wait)
            if turn:
                times[name].append(found)
    reference = next(iter(times.values()))
    return [_row(name, own, reference) for name, own in times.items()]


def _row(name: str, own: list[Seconds], reference: list[Seconds]) -> Row:
    median, rounds = statistics.median, list(zip(own, reference, strict=True))
    wall, cpu = sorted(a.wall / b.wall for a, b in rounds), [a.cpu / b.cpu for a, b in rounds]
    spread = wall[0], wall[-1]
    return Row(name, median(a.wall for a in own), median(wall), spread, median(a.cpu for a in own), median(cpu))


def show(title: str, rows: list[Row], notes: Mapping[str, str]) -> None:
    """Print a Markdown table."""
    print(f"\n### {title}\n\n| what | ms | ratio | min–max | CPU ms | CPU ratio | unavoidable |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        low, high = row.spread
        wall = f"{row.seconds * 1e3:.1f} | {row.ratio:.2f} | {low:.2f}–{high:.2f}"
        cpu = f"{row.cpu * 1e3:.1f} | {row.cpu_ratio:.2f}"
        print(f"| {row.name} | {wall} | {cpu} | {notes.get(row.name, '')} |", flush=True)
