"""Values of declared types: whether one is of a type and within bounds, and how to say what one should be.

| type | a value is |
|---|---|
| bool, int, float, str | true or false; a whole number; a finite number; a text that is not empty |
| Literal["a", "b"] | one of these words |
| tuple[T, ...] | a list of such values |
| tuple[T, T] | a list of two of them, and so on |
| Mapping | a table |
| X or Y | one of these |
| anything else, or no annotation | not judged |
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isfinite
from numbers import Integral, Real
from typing import Any, Literal, Union, get_args, get_origin

LARGEST_SEED = 2**63 - 1
MOST = 2**53
"""Of all that is counted: no run comes near, and as a float it is still exact."""
COUNTS = {2: "two", 3: "three"}


@dataclass(frozen=True)
class Bound:
    """low ≤ value ≤ high; low < value where `above`."""

    low: float = -inf
    high: float = inf
    above: bool = False

    def holds(self, value: float) -> bool:
        """Whether the value is inside."""
        return (self.low < value if self.above else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        if self == FROM_ONE:
            return " above 0"
        low = "" if self.low == -inf else f" {'above' if self.above else 'from'} {self.low:g}"
        if self.low == 1 and self.high < MOST:
            return f" above 0, at most {self.high:g}"
        high = "2^63 - 1" if self.high == LARGEST_SEED else f"{self.high:g}"
        return low if self.high == inf else f"{low} to {high}"


ANY = Bound()
POSITIVE = Bound(0.0, above=True)
FROM_ZERO = Bound(0.0)
FROM_ONE = Bound(1.0, float(MOST))
FRACTION = Bound(0.0, 1.0)
DECAY = Bound(0.0, 0.999999)
"""From 0 to below 1: the weight of the past in an average."""
SEED = Bound(0.0, LARGEST_SEED)


def shown(value: Any) -> str:
    """repr(value), cut off where it is long: it may come from a file."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of more digits than Python writes, or a list within itself
        return f"a {type(value).__name__} too long to be shown"
    return text if len(text) <= 80 else f"{text[:79]}…"


def word(value: Any) -> str:
    """A value as a command line has it: true, false, none, a number or a word; 0.9,0.999."""
    if isinstance(value, list | tuple):
        return ",".join(map(word, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def fits(kind: Any, bound: Bound, value: Any) -> bool:
    """Whether the value is of the type, its numbers within the bound."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return any(fits(part, bound, value) for part in parts)
    if origin is Literal:
        return any(type(value) is type(part) and value == part for part in parts)
    if origin is tuple:
        whole = isinstance(value, list | tuple) and (parts[-1] is Ellipsis or len(value) == len(parts))
        return whole and all(fits(parts[0], bound, one) for one in value)
    if kind is bool:
        return isinstance(value, bool)
    if kind in (int, float) and isinstance(value, bool):
        return False
    if kind is int:
        return isinstance(value, Integral) and bound.holds(int(value))
    if kind is float:
        return isinstance(value, Real) and _finite(value) and bound.holds(float(value))
    if kind is str:
        return isinstance(value, str) and bool(value)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping)
    return True


def _finite(value: Real) -> bool:
    try:
        return isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def wanted(kind: Any, bound: Bound, many: bool = False) -> str:
    """What a value of the type is, in words; `many` as the members of a list."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(wanted(part, bound) for part in parts)
    if origin is Literal:
        return f"one of {', '.join(map(word, parts))}" if not many else f"words among {', '.join(map(word, parts))}"
    if origin is tuple:
        count = "" if parts[-1] is Ellipsis else f"{COUNTS.get(len(parts), len(parts))} "
        return f"a list of {count}{wanted(parts[0], bound, many=True)}"
    if origin is not None:
        return "a table of names and values"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}
    plural = {int: "whole numbers", float: "numbers", str: "words"}
    text = plural.get(kind) if many else words.get(kind)
    if text is None:
        return "what it must be"
    return f"{text}{bound}" if kind in (int, float) else text
