"""Split-half standard errors: how far a number would move on other data, from the two halves of the data seen."""

from __future__ import annotations

from dataclasses import replace

from curvlab.operators.summary import Spectrum

_SCALARS = ("trace", "max", "min", "effective_rank", "condition_number", "condition_number_nonzero")


def standard_error(a: float | None, b: float | None) -> float | None:
    """|a − b|/2, the standard error of a number whose values on two independent halves of the data are a and b.

    The number on all data is about (a + b)/2. With Var a = Var b = σ² that has variance σ²/2, and E[(a − b)²]/4 =
    σ²/2 is the same, hence the 2. It is one draw: right in the mean square, with one degree of freedom. For a curved
    function of the data, such as a condition number, it holds the spread and not the bias of half the data. None
    when a half has no such number.
    """
    return None if a is None or b is None else abs(a - b) / 2


def with_split_half(full: Spectrum, half_a: Spectrum, half_b: Spectrum) -> Spectrum:
    """`full` with the `standard_error` of its trace, extremes, effective rank and condition numbers in `stderr`."""
    errors = {name: standard_error(getattr(half_a, name), getattr(half_b, name)) for name in _SCALARS}
    return replace(full, stderr=errors)
