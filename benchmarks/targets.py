"""What was asked of a measurement, and what it gave."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A ratio of wall times and the greatest that is good enough."""

    what: str
    measured: float
    asked: float


def show(targets: Iterable[Target]) -> None:
    """Print a Markdown table."""
    print("\n### Targets (wall time)\n\n| what | measured | asked | |\n|---|---|---|---|")
    for target in targets:
        verdict = "reached" if target.measured <= target.asked else "missed"
        print(f"| {target.what} | {target.measured:.2f} | ≤ {target.asked:g} | {verdict} |")
