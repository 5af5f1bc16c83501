"""`Sketch`: a matrix of which a few rows are kept, with its exact trace and diagonal and a bound of the error."""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from math import prod

from torch import Tensor

from curvlab.linalg.float64 import double
from curvlab.operators.diagonal import diagonal
from curvlab.operators.eigenvalues import eigenvalues
from curvlab.operators.operator import Kronecker, LowRank, Operator
from curvlab.operators.trace import trace
from curvlab.shapes import Float


@dataclass(frozen=True, eq=False)
class Sketch(LowRank):
    """F with 0 ≼ F − scale · rowsᵀ rows ≼ scale · lost · I: what is kept of more rows than fit the memory.

    Attributes:
        lost: bound of what `rows` miss in any direction, before `scale`.
        energy: diag(F) / scale, exact.
        ones: what a column of ones beside the features has become, where the features were sketched with one.
    """

    lost: float
    energy: Float[Tensor, " d"]
    ones: Float[Tensor, " r"] | None = None

    @property
    def error(self) -> float:
        """Every eigenvalue of F is between that of scale · rowsᵀ rows and `error` more (Weyl)."""
        return self.scale * self.lost


@diagonal.register
def _(operator: Sketch) -> Float[Tensor, " d"]:
    return operator.scale * double(operator.energy)


@trace.register
def _(operator: Sketch) -> float:
    return operator.scale * double(operator.energy).sum().item()


@singledispatch
def error(operator: Operator) -> float:
    """The most by which an eigenvalue of the operator is larger than the one that `eigenvalues` gives; 0 where they
    are exact."""
    return 0.0


@error.register
def _(operator: Sketch) -> float:
    return operator.error


def error_of_product(tops: list[float], errors: list[float]) -> float:
    """Π(λ_j + e_j) − Π λ_j of the largest eigenvalues λ_j of the factors: the error of a Kronecker product."""
    return prod(top + one for top, one in zip(tops, errors, strict=True)) - prod(tops)


@error.register
def _(operator: Kronecker) -> float:
    tops = [eigenvalues(factor).max().item() for factor in operator.factors]
    return error_of_product(tops, [error(factor) for factor in operator.factors])


@singledispatch
def is_exact(operator: Operator) -> bool:
    """Whether no part of the operator is a sketch."""
    return not isinstance(operator, Sketch)


@is_exact.register
def _(operator: Kronecker) -> bool:
    return all(map(is_exact, operator.factors))
