"""Spread: median, smallest and largest of one number over seeds; what does not exist counts as infinite."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Over the seeds; None stands for infinite.

    Attributes:
        median: the middle one, of an even number the mean of the middle two.
        min: the smallest.
        max: the largest.
    """

    median: float | None
    min: float | None
    max: float | None


def spread(values: Iterable[float | None]) -> Spread:
    """{median, min, max} of the values, None among them as ∞: a run that never arrives is the slowest, not left out."""
    numbers = [math.inf if value is None or not math.isfinite(value) else float(value) for value in values]
    if not numbers:
        return Spread(None, None, None)
    found = (statistics.median(numbers), min(numbers), max(numbers))
    return Spread(*(value if math.isfinite(value) else None for value in found))
