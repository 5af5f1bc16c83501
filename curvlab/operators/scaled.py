"""cF: an operator times a number, in the form it is stored in."""

from __future__ import annotations

from dataclasses import replace

from curvlab.operators.matrix import matrix
from curvlab.operators.on_columns import OnColumns
from curvlab.operators.operator import Dense, Diagonal, Grouped, LowRank, Operator


def scaled(operator: Operator, scale: float) -> Operator:
    """scale · F."""
    if scale == 1:
        return operator
    if isinstance(operator, LowRank):
        return replace(operator, scale=operator.scale * scale)
    if isinstance(operator, OnColumns):
        return replace(operator, inner=scaled(operator.inner, scale))
    if isinstance(operator, Grouped):
        return Grouped(operator.stack * scale)
    if isinstance(operator, Diagonal):
        return Diagonal(operator.values * scale)
    return Dense(matrix(operator) * scale)
