"""Eigenvalues of an operator: as one list, or as the lists whose products they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce, singledispatch

import torch
from torch import Tensor

from curvlab.errors import MemoryBudgetError, NumericalError
from curvlab.linalg.eigvalsh import safe_eigvalsh
from curvlab.linalg.float64 import double, double_gram
from curvlab.operators.operator import Dense, Diagonal, Grouped, GroupedKronecker, Kronecker, LowRank, Operator
from curvlab.shapes import Float

PRODUCT_LIMIT = 10_000_000
"""The longest list of eigenvalue products that is ever formed."""

Factored = tuple[Tensor, ...]
"""Lists `[g, n_1], [g, n_2], …`, ascending along n: the spectrum is all products of one entry of each, over all g."""


@singledispatch
def eigenvalues(operator: Operator) -> Float[Tensor, " d"]:
    """λ_1 ≤ … ≤ λ_d in float64, rounding included: a zero eigenvalue may come out as ±1e-17.

    Raises:
        NumericalError: a matrix is not finite or LAPACK did not converge.
        MemoryBudgetError: a Kronecker product has more than `PRODUCT_LIMIT` eigenvalues; `spectrum` needs no list.
        TypeError: no function is registered for this type of operator.
    """
    raise TypeError(f"eigenvalues: no rule is registered for {type(operator).__name__}")


@eigenvalues.register
def _(operator: Dense) -> Float[Tensor, " d"]:
    return safe_eigvalsh(operator.matrix)


@eigenvalues.register
def _(operator: Diagonal) -> Float[Tensor, " d"]:
    values = double(operator.values).sort().values
    if not bool(values.isfinite().all()):
        raise NumericalError(f"a diagonal of {operator.size} numbers is not finite", "its eigenvalues do not exist")
    return values


@eigenvalues.register
def _(operator: LowRank) -> Float[Tensor, " d"]:
    # rowsᵀrows and rows rowsᵀ have the same non-zero eigenvalues, to the same absolute accuracy: take the smaller one.
    count, size = operator.rows.shape
    rows = operator.rows if count >= size else operator.rows.T
    values = safe_eigvalsh(double_gram(rows[None])[0]) * operator.scale
    return torch.cat([values.new_zeros(max(size - count, 0)), values]).sort().values


@eigenvalues.register
def _(operator: Grouped) -> Float[Tensor, " d"]:
    return products(factored_eigenvalues(operator))


@eigenvalues.register
def _(operator: Kronecker) -> Float[Tensor, " d"]:
    return products(factored_eigenvalues(operator))


@eigenvalues.register
def _(operator: GroupedKronecker) -> Float[Tensor, " d"]:
    return products(factored_eigenvalues(operator))


@singledispatch
def factored_eigenvalues(operator: Operator) -> Factored:
    """λ(F_1 ⊗ F_2 ⊗ …) = {λ_i(F_1) λ_j(F_2) …}: the lists, not their products; one list for any other operator.

    Returns:
        float64 lists `[g, n]`; an operator without groups has g = 1.
    """
    return (eigenvalues(operator)[None],)


@factored_eigenvalues.register
def _(operator: Grouped) -> Factored:
    return (safe_eigvalsh(operator.stack),)


@factored_eigenvalues.register
def _(operator: GroupedKronecker) -> Factored:
    return tuple(safe_eigvalsh(factor.stack) for factor in operator.factors)


@factored_eigenvalues.register
def _(operator: Kronecker) -> Factored:
    return kronecker_lists([factored_eigenvalues(factor) for factor in operator.factors])


def kronecker_lists(factors: Sequence[Factored]) -> Factored:
    """The lists of a Kronecker product from those of its factors.

    Every eigenvalue of a factor meets every one of the others, so the groups of a factor become one list.
    """
    ungrouped = (lists if lists[0].shape[0] == 1 else (products(lists)[None],) for lists in factors)
    return tuple(values for lists in ungrouped for values in lists)


def products(lists: Factored) -> Float[Tensor, " d"]:
    """All products of one entry of each list, over all groups, ascending.

    Raises:
        MemoryBudgetError: there are more than `PRODUCT_LIMIT` of them.
    """
    total = lists[0].shape[0] * math.prod(values.shape[1] for values in lists)
    if total > PRODUCT_LIMIT:
        raise MemoryBudgetError(
            f"an operator of size {total:,} has as many eigenvalues",
            f"lists of more than {PRODUCT_LIMIT:,} are not formed",
            "use its spectrum, which needs none",
        )
    return reduce(outer, lists).flatten().sort().values


def outer(a: Float[Tensor, "g n"], b: Float[Tensor, "g m"]) -> Float[Tensor, "g nm"]:
    """a_i b_j for every pair of one group, in no particular order."""
    return (a[:, :, None] * b[:, None, :]).flatten(1)
