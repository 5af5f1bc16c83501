"""Question: a number that the layers of a model are compared by, and which end of it is the bad one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from curvlab.analyses.ranking import Rank, Ranking


@dataclass(frozen=True)
class Question:
    """One number of an analysis's results.

    Attributes:
        title: heading of its column.
        key: how the JSON calls it: the path of the number below the analysis, or a name of its own.
        value: the number of one result, infinity included; None where there is none.
        text: the number of one result as a person reads it.
        legend: what the title means, as in `Quantity`.
        lowest: whether small numbers are the bad ones.
        ranked: which results are worse, where that is not the value alone.
    """

    title: str
    key: str
    value: Callable[[Any], float | None]
    text: Callable[[Any], str]
    legend: str = ""
    lowest: bool = False
    ranked: Ranking | None = None

    def rank(self, result: Any) -> Rank | None:
        """The larger, the worse; None where the result has no such number."""
        if self.ranked is not None:
            return self.ranked(result)
        value = self.value(result)
        return None if value is None else (-value if self.lowest else value, 0.0)


def infinite(value: float | None) -> float:
    """A condition number that does not exist, of a matrix that was looked at, is infinite."""
    return math.inf if value is None else value
