"""An operator written out as a dense matrix: for tests, small blocks and dense solvers."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce, singledispatch

import torch
from torch import Tensor

from curvlab.errors import MemoryBudgetError
from curvlab.linalg.float64 import double, double_gram
from curvlab.operators.operator import Dense, Diagonal, Grouped, GroupedKronecker, Kronecker, LowRank, Operator
from curvlab.shapes import Float

SIZE_LIMIT = 8192
"""The most rows that are written out: 512 MiB in float64."""


@singledispatch
def matrix(operator: Operator) -> Float[Tensor, "d d"]:
    """F `[d, d]` in float64.

    Raises:
        MemoryBudgetError: F has more than `SIZE_LIMIT` rows.
        TypeError: no function is registered for this type of operator.
    """
    raise TypeError(f"matrix: no rule is registered for {type(operator).__name__}")


@matrix.register
def _(operator: Dense) -> Float[Tensor, "d d"]:
    return double(operator.matrix)


@matrix.register
def _(operator: Diagonal) -> Float[Tensor, "d d"]:
    _refuse_large(operator)
    return double(operator.values).diag()


@matrix.register
def _(operator: LowRank) -> Float[Tensor, "d d"]:
    _refuse_large(operator)
    return operator.scale * double_gram(operator.rows[None])[0]


@matrix.register
def _(operator: Grouped) -> Float[Tensor, "d d"]:
    _refuse_large(operator)
    return _block_diagonal(double(operator.stack))


@matrix.register
def _(operator: Kronecker) -> Float[Tensor, "d d"]:
    _refuse_large(operator)
    return reduce(torch.kron, [matrix(factor) for factor in operator.factors])


@matrix.register
def _(operator: GroupedKronecker) -> Float[Tensor, "d d"]:
    _refuse_large(operator)
    groups = zip(*(double(factor.stack) for factor in operator.factors), strict=True)
    return _block_diagonal([reduce(torch.kron, blocks) for blocks in groups])


def _block_diagonal(blocks: Iterable[Tensor]) -> Float[Tensor, "d d"]:
    joined: Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
    return joined


def _refuse_large(operator: Operator) -> None:
    if operator.size > SIZE_LIMIT:
        raise MemoryBudgetError(
            f"an operator of size {operator.size:,} needs {operator.size**2 * 8 / 2**30:.1f} GiB as a dense matrix",
            f"more than {SIZE_LIMIT:,} rows are not written out",
            "use the operator's own functions",
        )
