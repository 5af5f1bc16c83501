"""Trace of an operator, from its stored form."""

from __future__ import annotations

import math
from functools import singledispatch

import torch

from curvlab.linalg.float64 import double, pieces
from curvlab.operators.operator import Dense, Diagonal, Grouped, GroupedKronecker, Kronecker, LowRank, Operator


@singledispatch
def trace(operator: Operator) -> float:
    """Σ_i F_ii, in float64; tr(F_1 ⊗ F_2) = tr F_1 · tr F_2, so no product is formed.

    Raises:
        TypeError: no function is registered for this type of operator.
    """
    raise TypeError(f"trace: no rule is registered for {type(operator).__name__}")


@trace.register
def _(operator: Dense) -> float:
    return double(operator.matrix.diagonal()).sum().item()


@trace.register
def _(operator: Diagonal) -> float:
    return double(operator.values).sum().item()


@trace.register
def _(operator: LowRank) -> float:
    return operator.scale * sum(rows.square().sum().item() for _, rows in pieces(operator.rows[None]))


@trace.register
def _(operator: Grouped) -> float:
    return double(operator.stack.diagonal(dim1=1, dim2=2)).sum().item()


@trace.register
def _(operator: Kronecker) -> float:
    return math.prod(trace(factor) for factor in operator.factors)


@trace.register
def _(operator: GroupedKronecker) -> float:
    traces = [double(factor.stack.diagonal(dim1=1, dim2=2)).sum(1) for factor in operator.factors]
    return torch.stack(traces).prod(0).sum().item()
