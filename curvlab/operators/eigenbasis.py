"""`Eigenbasis`: a Kronecker-factored basis with eigenvalues of its own, as exact damping and EKFAC need it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from curvlab.errors import NumericalError
from curvlab.linalg.by_size import by_size
from curvlab.linalg.eigh import safe_eigh
from curvlab.linalg.float64 import double
from curvlab.linalg.flushed import flushed
from curvlab.operators.eigenvalues import eigenvalues, outer
from curvlab.operators.operator import Dense, Diagonal, Grouped, GroupedKronecker, Kronecker, Operator
from curvlab.operators.product import along, multiply_modes
from curvlab.operators.trace import trace
from curvlab.shapes import Float


@dataclass(frozen=True, eq=False)
class Eigenbasis(Operator):
    """Q diag(values) Qᵀ with Q = blockdiag_g(bases[0][g] ⊗ bases[1][g] ⊗ …) (Grosse 2021, eq. 23).

    A base `[g, d_j, d_j]` is orthogonal with eigenvectors in its columns; None is the identity, the basis of a diagonal
    factor. `values` `[g, d_1, …, d_k]` are products of the factors' eigenvalues, those plus λ, their powers, or the
    second moments of rotated gradients (EKFAC, Ren 2022, section 1.1). Modes are in the order of `product`: (G, A) for
    a matrix."""

    bases: tuple[Tensor | None, ...]
    values: Float[Tensor, "g ..."]

    def __post_init__(self) -> None:
        groups, *modes = self.values.shape
        expected = [(groups, d, d) for d in modes]
        found = [None if base is None else tuple(base.shape) for base in self.bases]
        if len(found) != len(expected) or any(f not in (None, e) for f, e in zip(found, expected, strict=True)):
            raise ValueError(f"bases of shapes {found} do not fit values of shape {tuple(self.values.shape)}")

    @property
    def size(self) -> int:
        """g · d_1 ⋯ d_k."""
        return self.values.numel()

    def rotated(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Qᵀ vec(x) in the shape of x; its last axes hold `size` numbers, axes before them are a batch (EKFAC)."""
        return self.into(x.reshape(-1, self.size, 1)).reshape(x.shape)

    def into(self, x: Float[Tensor, "l d r"]) -> Float[Tensor, "l d r"]:
        """y[l, :, r] = Qᵀ x[l, :, r]."""
        transposed = tuple(None if base is None else base.mT for base in self.bases)
        return multiply_modes(transposed, x, tuple(self.values.shape[1:]))

    def out_of(self, x: Float[Tensor, "l d r"]) -> Float[Tensor, "l d r"]:
        """y[l, :, r] = Q x[l, :, r]."""
        return multiply_modes(self.bases, x, tuple(self.values.shape[1:]))


@along.register
def _(operator: Eigenbasis, x: Float[Tensor, "l d r"]) -> Float[Tensor, "l d r"]:
    return operator.out_of(operator.into(x) * operator.values.reshape(-1, 1))


@trace.register
def _(operator: Eigenbasis) -> float:
    return double(operator.values).sum().item()


@eigenvalues.register
def _(operator: Eigenbasis) -> Float[Tensor, " d"]:
    return double(operator.values).flatten().sort().values


def eigenbasis(operator: Operator) -> Eigenbasis:
    """F_1 ⊗ F_2 ⊗ … = Q diag(λ(F_1) ⊗ λ(F_2) ⊗ …) Qᵀ, Q = Q_1 ⊗ Q_2 ⊗ … (Grosse 2021, eq. 23 before the damping).

    Eigenvalues that rounding made negative become 0, so that values + λ is positive.

    Args:
        operator: a `Kronecker` of `Dense` and `Diagonal` factors, a `GroupedKronecker`, `Dense`, `Grouped` or
            `Diagonal`; an `Eigenbasis` is returned as it is.

    Raises:
        NumericalError: a factor is not finite, or its eigenvalues did not converge.
        TypeError: another type of operator.
    """
    (found,) = eigenbases([operator])
    if found is None:
        raise NumericalError(
            f"the eigenbasis of an operator of size {operator.size:,} does not exist",
            "a factor is not finite or its eigenvalues did not converge",
            "look for NaN or infinity in the loss and its gradients",
        )
    return found


def eigenbases(operators: Sequence[Operator]) -> list[Eigenbasis | None]:
    """`eigenbasis` of several operators, with factors of equal size as one batch; None where it does not exist."""
    rows = [_factors(operator) for operator in operators]
    stacks = [factor.stack for row in rows for factor in row if isinstance(factor, Grouped)]
    solved = iter(by_size(stacks, safe_eigh))
    found = [
        operator if isinstance(operator, Eigenbasis) else _joined(row, solved)
        for operator, row in zip(operators, rows, strict=True)
    ]
    # NaN and infinity of a factor stand in its values, and one reading answers for all operators.
    there = torch.stack([one.values.isfinite().all() for one in found]).tolist() if found else []
    return [one if ok else None for one, ok in zip(found, there, strict=True)]


def _factors(operator: Operator) -> tuple[Grouped | Diagonal, ...]:
    if isinstance(operator, Eigenbasis):
        return ()
    if isinstance(operator, GroupedKronecker):
        return operator.factors
    return tuple(_stacked(factor) for factor in (operator.factors if isinstance(operator, Kronecker) else (operator,)))


def _stacked(factor: Operator) -> Grouped | Diagonal:
    if isinstance(factor, Dense):
        return Grouped(factor.matrix[None])
    if isinstance(factor, (Grouped, Diagonal)):
        return factor
    raise TypeError(f"eigenbasis: {type(factor).__name__} is not a dense or diagonal factor")


def _joined(factors: tuple[Grouped | Diagonal, ...], solved: Iterator[tuple[Tensor, ...]]) -> Eigenbasis:
    """The basis of factors from the solutions of those that are matrices; values are NaN where there is none."""
    bases: list[Tensor | None] = []
    lists = []
    for factor in factors:
        if isinstance(factor, Diagonal):
            bases.append(None)
            lists.append(factor.values[None].clamp(min=0))
        else:
            values, vectors, ok = next(solved)
            # Entries of unit vectors are known to eps at best; under its square they only slow products down.
            bases.append(flushed(vectors, torch.finfo(vectors.dtype).eps ** 2))
            lists.append(values.clamp(min=0).where(ok[:, None], torch.nan))
    shape = (lists[0].shape[0], *(values.shape[1] for values in lists))
    return Eigenbasis(tuple(bases), flushed(reduce(outer, lists).view(shape)))
