"""Diagonal of an operator, from its stored form."""

from __future__ import annotations

from functools import reduce, singledispatch

import torch
from torch import Tensor

from curvlab.linalg.float64 import double, pieces
from curvlab.operators.eigenvalues import outer
from curvlab.operators.operator import Dense, Diagonal, Grouped, GroupedKronecker, Kronecker, LowRank, Operator
from curvlab.shapes import Float


@singledispatch
def diagonal(operator: Operator) -> Float[Tensor, " d"]:
    """F_11, …, F_dd in float64, in the operator's own order.

    Raises:
        TypeError: no function is registered for this type of operator.
    """
    raise TypeError(f"diagonal: no rule is registered for {type(operator).__name__}")


@diagonal.register
def _(operator: Dense) -> Float[Tensor, " d"]:
    return double(operator.matrix.diagonal())


@diagonal.register
def _(operator: Diagonal) -> Float[Tensor, " d"]:
    return double(operator.values)


@diagonal.register
def _(operator: LowRank) -> Float[Tensor, " d"]:
    squares = [rows[0].square().sum(0) for _, rows in pieces(operator.rows[None])]
    return operator.scale * torch.stack(squares).sum(0)


@diagonal.register
def _(operator: Grouped) -> Float[Tensor, " d"]:
    return double(operator.stack.diagonal(dim1=1, dim2=2)).flatten()


@diagonal.register
def _(operator: Kronecker) -> Float[Tensor, " d"]:
    return reduce(outer, [diagonal(factor)[None] for factor in operator.factors]).flatten()


@diagonal.register
def _(operator: GroupedKronecker) -> Float[Tensor, " d"]:
    return reduce(outer, [double(factor.stack.diagonal(dim1=1, dim2=2)) for factor in operator.factors]).flatten()
