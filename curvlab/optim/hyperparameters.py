"""Bounds of hyper-parameters: every wrong value of a call becomes one sentence, all in one error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from curvlab.errors import CurvlabError


@dataclass(frozen=True)
class Bound:
    """low ≤ value ≤ high, or low < value when `above`; whole numbers only when `whole`; or one of `choices`."""

    low: float = 0.0
    high: float = float("inf")
    above: bool = False
    whole: bool = False
    choices: tuple[Any, ...] = ()

    def problem(self, name: str, value: Any) -> str | None:
        """What is wrong with the value, or None."""
        if self.choices:
            listed = ", ".join(map(repr, self.choices))
            return None if value in self.choices else f"{name} is {value!r}, not one of {listed}"
        number = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
        whole = not self.whole or (number and value == int(value))
        inside = number and (self.low < value if self.above else self.low <= value) and value <= self.high
        if number and whole and inside:
            return None
        kind = "a whole number" if self.whole else "a number"
        limits = f"{'above' if self.above else 'from'} {self.low:g}" + (
            "" if self.high == float("inf") else f" to {self.high:g}"
        )
        return f"{name} is {value!r}, not {kind} {limits}"


POSITIVE = Bound(above=True)
"""Above zero."""
RATE = Bound()
"""Zero or more."""
FRACTION = Bound(high=1.0)
"""From 0 to 1."""
DECAY = Bound(high=0.999999)
"""From 0 to below 1: the weight of the past in an average."""
INTERVAL = Bound(low=1, whole=True)
"""A number of steps."""


def check(optimizer: str, values: Mapping[str, Any], bounds: Mapping[str, Bound]) -> None:
    """Raise one CurvlabError that names every value out of bounds.

    Args:
        optimizer: name for the message.
        values: hyper-parameters; those without a bound are not checked.
        bounds: by name.
    """
    problems: Iterable[str | None] = (
        bound.problem(name, values[name]) for name, bound in bounds.items() if name in values
    )
    found = [problem for problem in problems if problem]
    if found:
        raise CurvlabError(f"{optimizer}: {'; '.join(found)}")
