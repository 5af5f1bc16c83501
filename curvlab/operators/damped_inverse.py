"""(B + λI)⁻¹ of several operators at once, so that equal sizes share a batched call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from curvlab.operators.damp import exact
from curvlab.operators.operator import Operator
from curvlab.operators.power import powers


def damped_inverses(
    operators: Sequence[Operator | None], settings: Sequence[Mapping[str, Any]]
) -> list[Operator | None]:
    """(B + λI)⁻¹ of those operators that are there, λ = settings["damping"]; None for the others."""
    there = [(i, operator) for i, operator in enumerate(operators) if operator is not None]
    inverted = powers([exact(settings[i]["damping"])(operator) for i, operator in there], [-1.0] * len(there))
    found: list[Operator | None] = [None] * len(operators)
    for (i, _), operator in zip(there, inverted, strict=True):
        found[i] = operator
    return found
