"""Alternating measurement: every contender once per round, medians over rounds, ratios to the first."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One contender: median seconds, and the median over rounds of its ratio to the reference of the same round."""

    name: str
    seconds: float
    ratio: float
    spread: tuple[float, float]


CLOCK: Callable[[], float] = time.perf_counter
"""Wall time; `--cpu-time` replaces it by the time this process computed, which a busy machine does not change."""


def alternate(contenders: Mapping[str, Callable[[], object]], rounds: int) -> list[Row]:
    """Run all contenders in turn, `rounds` times after one round of warm-up; the first is the reference of the
    ratios."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, run in contenders.items():
            start = CLOCK()
            run()
            if turn:
                times[name].append(CLOCK() - start)
    reference = next(iter(times.values()))
    rows = []
    for name, own in times.items():
        ratios = sorted(mine / base for mine, base in zip(own, reference, strict=True))
        rows.append(Row(name, statistics.median(own), statistics.median(ratios), (ratios[0], ratios[-1])))
    return rows


def show(title: str, rows: list[Row], notes: Mapping[str, str]) -> None:
    """Print a Markdown table."""
    print(f"\n### {title}\n\n| what | ms | ratio | min–max | unavoidable |\n|---|---|---|---|---|")
    for row in rows:
        low, high = row.spread
        note = notes.get(row.name, "")
        print(f"| {row.name} | {row.seconds * 1e3:.1f} | {row.ratio:.2f} | {low:.2f}–{high:.2f} | {note} |")
