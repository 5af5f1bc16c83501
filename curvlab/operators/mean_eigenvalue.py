"""The mean eigenvalue of an operator as a tensor on its device, for damping inside the training loop."""

from __future__ import annotations

from functools import reduce, singledispatch
from operator import mul

from torch import Tensor

from curvlab.operators.eigenbasis import Eigenbasis
from curvlab.operators.operator import Dense, Diagonal, Grouped, GroupedKronecker, Kronecker, LowRank, Operator
from curvlab.operators.woodbury import Woodbury
from curvlab.shapes import Float


@singledispatch
def mean_eigenvalue(operator: Operator) -> Float[Tensor, ""]:
    """tr F / d, in the dtype and on the device of F; `trace` is the exact float64 one, read from the device.

    Raises:
        TypeError: no function is registered for this type of operator.
    """
    raise TypeError(f"mean_eigenvalue: no rule is registered for {type(operator).__name__}")


@mean_eigenvalue.register
def _(operator: Dense) -> Float[Tensor, ""]:
    return operator.matrix.diagonal().mean()


@mean_eigenvalue.register
def _(operator: Diagonal) -> Float[Tensor, ""]:
    return operator.values.mean()


@mean_eigenvalue.register
def _(operator: LowRank) -> Float[Tensor, ""]:
    return operator.rows.square().sum() * (operator.scale / operator.size)


@mean_eigenvalue.register
def _(operator: Woodbury) -> Float[Tensor, ""]:
    return operator.rows.square().sum() * (operator.scale / operator.size) + operator.lam


@mean_eigenvalue.register
def _(operator: Grouped) -> Float[Tensor, ""]:
    return operator.stack.diagonal(dim1=1, dim2=2).mean()


@mean_eigenvalue.register
def _(operator: Eigenbasis) -> Float[Tensor, ""]:
    return operator.values.mean()


@mean_eigenvalue.register
def _(operator: Kronecker) -> Float[Tensor, ""]:
    return reduce(mul, [mean_eigenvalue(factor) for factor in operator.factors])


@mean_eigenvalue.register
def _(operator: GroupedKronecker) -> Float[Tensor, ""]:
    return reduce(mul, [factor.stack.diagonal(dim1=1, dim2=2).mean(1) for factor in operator.factors]).mean()
