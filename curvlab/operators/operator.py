"""Operators: symmetric positive semi-definite matrices, kept in the form they were measured in.

What can be done with one (`eigenvalues`, `trace`, `diagonal`, `matrix`, `spectrum`) is a function registered per
type, one file each, so that a new type is added from outside exactly as these are: subclass `Operator`, register the
functions.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from curvlab.shapes import Float, Inexact


class Operator(ABC):
    """A symmetric positive semi-definite matrix of `size` rows, however it is stored."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Number of rows (and of eigenvalues)."""


@dataclass(frozen=True, eq=False)
class Dense(Operator):
    """The matrix itself; only its lower triangle is read where symmetry allows it. A complex one only has `product`."""

    matrix: Inexact[Tensor, "d d"]

    @property
    def size(self) -> int:
        """d."""
        return self.matrix.shape[0]


@dataclass(frozen=True, eq=False)
class Diagonal(Operator):
    """diag(values), for example the second moment of one-hot features."""

    values: Float[Tensor, " d"]

    @property
    def size(self) -> int:
        """d."""
        return self.values.shape[0]


@dataclass(frozen=True, eq=False)
class LowRank(Operator):
    """scale · rowsᵀ rows: what is known when fewer rows than features were seen. A mean over r rows has scale = 1/r."""

    rows: Float[Tensor, "r d"]
    scale: float

    @property
    def size(self) -> int:
        """d."""
        return self.rows.shape[1]


@dataclass(frozen=True, eq=False)
class Grouped(Operator):
    """blockdiag(stack[0], stack[1], …): a block per group of a grouped convolution, per gate, per channel of a norm."""

    stack: Float[Tensor, "g d d"]

    @property
    def size(self) -> int:
        """g · d."""
        return self.stack.shape[0] * self.stack.shape[1]


@dataclass(frozen=True, eq=False)
class Kronecker(Operator):
    """factors[0] ⊗ factors[1] ⊗ …: a K-FAC block of two factors, a tensor-normal block of one factor per mode."""

    factors: tuple[Operator, ...]

    def __post_init__(self) -> None:
        if not self.factors:
            raise ValueError("a Kronecker product needs at least one factor")

    @property
    def size(self) -> int:
        """Product of the factors' sizes."""
        return math.prod(factor.size for factor in self.factors)


@dataclass(frozen=True, eq=False)
class GroupedKronecker(Operator):
    """blockdiag_g(factors[0].stack[g] ⊗ factors[1].stack[g] ⊗ …): the K-FAC block of a grouped layer.

    Not the Kronecker product of block-diagonal matrices, which would also pair factors of different groups.
    """

    factors: tuple[Grouped, ...]

    def __post_init__(self) -> None:
        groups = [factor.stack.shape[0] for factor in self.factors]
        if not groups or len(set(groups)) > 1:
            raise ValueError(f"a grouped Kronecker product needs factors of one number of groups, not {groups}")

    @property
    def size(self) -> int:
        """g times the product of the block sizes."""
        return self.factors[0].stack.shape[0] * math.prod(factor.stack.shape[1] for factor in self.factors)
