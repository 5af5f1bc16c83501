"""Damping: values that make an operator safely positive definite, each a function from operator to operator.

    damping = factored(1e-2)
    damped = damping(operator)

Nothing is read back from the device (save by the eigendecomposition that `exact` needs for a Kronecker product, unless
it was made before, by `eigenbases`), and λ may be a tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import singledispatch
from typing import Literal

import torch
from torch import Tensor

from curvlab.linalg.gram import gram
from curvlab.operators.eigenbasis import Eigenbasis, eigenbasis
from curvlab.operators.mean_eigenvalue import mean_eigenvalue
from curvlab.operators.operator import Dense, Diagonal, Grouped, GroupedKronecker, Kronecker, LowRank, Operator
from curvlab.operators.woodbury import Woodbury
from curvlab.shapes import Float

Damping = Callable[[Operator], Operator]
Scalar = float | Float[Tensor, ""]


@singledispatch
def shift(operator: Operator, lam: Scalar) -> Operator:
    """F + λI, in the form that costs least.

    A Kronecker product turns into an `Eigenbasis`, a low-rank one of fewer rows than columns into a `Woodbury`.

    Raises:
        TypeError: no function is registered for this type of operator.
    """
    raise TypeError(f"shift: no rule is registered for {type(operator).__name__}")


@shift.register
def _(operator: Dense, lam: Scalar) -> Operator:
    return Dense(_on_diagonal(operator.matrix, lam))


@shift.register
def _(operator: Grouped, lam: Scalar) -> Operator:
    return Grouped(_on_diagonal(operator.stack, lam))


@shift.register
def _(operator: Diagonal, lam: Scalar) -> Operator:
    return Diagonal(operator.values + lam)


@shift.register
def _(operator: LowRank, lam: Scalar) -> Operator:
    count, size = operator.rows.shape
    if count < size:
        return Woodbury(operator.rows, operator.scale, lam)
    return Dense(_on_diagonal(gram(operator.rows) * operator.scale, lam))


@shift.register
def _(operator: Woodbury, lam: Scalar) -> Operator:
    return Woodbury(operator.rows, operator.scale, operator.lam + lam)


@shift.register
def _(operator: Eigenbasis, lam: Scalar) -> Operator:
    return Eigenbasis(operator.bases, operator.values + lam)


@shift.register(Kronecker)
@shift.register(GroupedKronecker)
def _(operator: Kronecker | GroupedKronecker, lam: Scalar) -> Operator:
    return shift(eigenbasis(operator), lam)


def exact(lam: Scalar) -> Damping:
    """F → F + λI; for G ⊗ A in the eigenbasis, where it is values + λ (Grosse 2021, eq. 23).

    Args:
        lam: λ ≥ 0.

    Raises:
        ValueError: λ is negative or not finite.
        NumericalError: (on use) a Kronecker product has no eigenbasis; `eigenbases` finds out without an error.
    """
    _refuse_negative(lam)
    return lambda operator: shift(operator, lam)


def per_factor(eps: Scalar) -> Damping:
    """U_1 ⊗ … ⊗ U_k → (U_1 + εI) ⊗ … ⊗ (U_k + εI) (Ren 2022, Alg. 15, 16); F + εI for what is no Kronecker product.

    Arguments and errors as in `exact`.
    """
    _refuse_negative(eps)

    def damped(operator: Operator) -> Operator:
        if isinstance(operator, GroupedKronecker):
            return GroupedKronecker(tuple(Grouped(_on_diagonal(one.stack, eps)) for one in operator.factors))
        if isinstance(operator, Kronecker):
            return Kronecker(tuple(shift(factor, eps) for factor in operator.factors))
        return shift(operator, eps)

    return damped


def factored(lam: Scalar, pi: Literal["trace"] | float = "trace") -> Damping:
    """G ⊗ A → (G + √λ/π I) ⊗ (A + π√λ I), π = √((tr A/d_A)/(tr G/d_G)), which is above G ⊗ A + λI (Grosse 2021, eq.
    24).

    With m_j = tr U_j/d_j, and m̄ their geometric mean, this is U_j + λ^(1/k)·m_j/m̄ I for k = 2 factors, and the same
    is done for any k: every factor is damped in proportion to its mean eigenvalue. π is found for each group. Where a
    trace is zero, negative or not finite π is 1. For what is no Kronecker product (k = 1): F + λI.

    Args:
        lam: λ ≥ 0.
        pi: "trace", or a number: 1 for every factor alike (Ren 2022, Alg. 7), others for two factors (G, A) only.

    Raises:
        ValueError: λ is negative or not finite, or π is not positive.
    """
    _refuse_negative(lam)
    if pi != "trace" and not 0 < pi < math.inf:
        raise ValueError(f"π = {pi} shares out damping between two factors and must be a positive number")

    def damped(operator: Operator) -> Operator:
        if isinstance(operator, GroupedKronecker):
            means = [factor.stack.diagonal(dim1=1, dim2=2).mean(1) for factor in operator.factors]
            shifts = _shares(lam, pi, means)
            stacks = [_on_diagonal(one.stack, s) for one, s in zip(operator.factors, shifts, strict=True)]
            return GroupedKronecker(tuple(Grouped(stack) for stack in stacks))
        if isinstance(operator, Kronecker):
            shifts = _shares(lam, pi, [mean_eigenvalue(factor) for factor in operator.factors])
            return Kronecker(tuple(shift(factor, s) for factor, s in zip(operator.factors, shifts, strict=True)))
        return shift(operator, lam)

    return damped


def _shares(lam: Scalar, pi: Literal["trace"] | float, means: Sequence[Tensor]) -> list[float | Tensor]:
    """λ^(1/k)·m_j/m̄ for every factor; each a number, or a tensor of the shape of the means."""
    root = lam ** (1 / len(means))
    if pi != "trace":
        if len(means) != 2 and pi != 1:
            raise ValueError(f"π = {pi} shares out damping between two factors, not {len(means)}")
        return [root / pi, root * pi] if len(means) == 2 else [root] * len(means)
    stacked = torch.stack(list(means))
    # By logarithms, since a product of small traces underflows.
    logs = stacked.log()
    ratios = (logs - logs.mean(0)).exp()
    usable = (stacked > 0).all(0) & ratios.isfinite().all(0)
    return list(root * ratios.where(usable, 1.0))


def _on_diagonal(matrices: Float[Tensor, "*g d d"], lam: float | Tensor) -> Float[Tensor, "*g d d"]:
    """matrices + λI; λ is one number, or one for each group."""
    out = matrices.clone()
    diagonal = out.diagonal(dim1=-2, dim2=-1)
    diagonal += lam[:, None] if isinstance(lam, Tensor) and lam.dim() else lam
    return out


def _refuse_negative(lam: Scalar) -> None:
    # A tensor is not looked at: that would wait for the device.
    if not isinstance(lam, Tensor) and not 0 <= lam < math.inf:
        raise ValueError(f"damping must be zero or a positive number, not {lam}")
