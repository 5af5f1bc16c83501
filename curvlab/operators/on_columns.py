"""`OnColumns`: a matrix with a few rows and columns that are not zero, such as those of the tokens that were seen."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from curvlab.operators.diagonal import diagonal
from curvlab.operators.eigenvalues import eigenvalues
from curvlab.operators.matrix import SIZE_LIMIT, matrix
from curvlab.operators.operator import Diagonal, Operator
from curvlab.operators.product import along
from curvlab.operators.sketch import error, is_exact
from curvlab.operators.trace import trace
from curvlab.shapes import Float, Int


@dataclass(frozen=True, eq=False)
class OnColumns(Operator):
    """F with F[columns, columns] = inner and zeros elsewhere.

    Attributes:
        inner: of as many rows as there are columns.
        columns: ascending.
        width: rows of F.
    """

    inner: Operator
    columns: Int[Tensor, " s"]
    width: int

    @property
    def size(self) -> int:
        """Rows of F, those of zeros included."""
        return self.width


@eigenvalues.register
def _(operator: OnColumns) -> Float[Tensor, " d"]:
    values = eigenvalues(operator.inner)
    return torch.cat([values.new_zeros(operator.width - len(values)), values]).sort().values


@trace.register
def _(operator: OnColumns) -> float:
    return trace(operator.inner)


@error.register
def _(operator: OnColumns) -> float:
    return error(operator.inner)


@is_exact.register
def _(operator: OnColumns) -> bool:
    return is_exact(operator.inner)


@diagonal.register
def _(operator: OnColumns) -> Float[Tensor, " d"]:
    values = diagonal(operator.inner)
    return values.new_zeros(operator.width).index_copy(0, operator.columns, values)


@matrix.register
def _(operator: OnColumns) -> Float[Tensor, "d d"]:
    inner = matrix(operator.inner)
    if operator.width > SIZE_LIMIT:
        matrix(Diagonal(inner.new_zeros(operator.width)))  # says that it is too large
    out = inner.new_zeros(operator.width, operator.width)
    out[operator.columns[:, None], operator.columns] = inner
    return out


@along.register
def _(operator: OnColumns, x: Float[Tensor, "l d r"]) -> Float[Tensor, "l d r"]:
    y = along(operator.inner, x[:, operator.columns])
    return torch.zeros_like(x).index_copy(1, operator.columns, y)
