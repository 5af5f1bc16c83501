"""Sparkline: a curve in one line of text, ▁ the lowest and █ the highest of its scale."""

from __future__ import annotations

import math
from collections.abc import Sequence

BARS = "▁▂▃▄▅▆▇█"
LOST = "×"
"""A number that does not exist, or is beyond all."""


def sparkline(values: Sequence[float | None], low: float, high: float, width: int = 12) -> str:
    """`values` in at most `width` characters, the first and the last among them.

    The scale runs from `low` to `high`: of logarithms where both are above 0. What lies outside is drawn at its end.
    """
    if len(values) > width:
        values = [values[round(place * (len(values) - 1) / (width - 1))] for place in range(width)]
    logarithmic = low > 0

    def bar(value: float | None) -> str:
        if value is None or not math.isfinite(value):
            return LOST
        if high <= low:
            return BARS[0]
        kept = min(max(value, low), high)
        share = math.log(kept / low) / math.log(high / low) if logarithmic else (kept - low) / (high - low)
        return BARS[min(len(BARS) - 1, int(share * len(BARS)))]

    return "".join(map(bar, values))
