"""Rank: what the rows of a table are sorted by, the largest first."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

Rank = tuple[float, float]
"""What layers are compared by: a number, and among equal ones (two singular matrices) a second."""

Ranking = Callable[[Any], Rank | None]
"""The rank of a result; None where it has no such number, and its layer then comes last."""

Rankings = Mapping[str, Ranking]
"""Key of `--sort` -> how it ranks results."""


def by_number(field: str) -> Ranking:
    """Ranks results by a field of theirs."""

    def rank(result: Any) -> Rank | None:
        value = getattr(result, field)
        return None if value is None else (float(value), 0.0)

    return rank


def by_condition(value: float | None, over_range: float | None = None) -> Rank:
    """A condition number; an infinite one (None) is above all others, and among those the one over the range counts."""
    return (math.inf if value is None else value, over_range or 0.0)
