"""`Woodbury`: a damped low-rank operator, whose inverse needs a matrix no larger than the number of its rows."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from curvlab.linalg.float64 import pieces
from curvlab.operators.operator import Operator
from curvlab.operators.product import along
from curvlab.operators.trace import trace
from curvlab.shapes import Float


@dataclass(frozen=True, eq=False)
class Woodbury(Operator):
    """scale · rowsᵀ rows + λI: the exact block of r stored per-example gradients (scale = 1/r), damped.

    Its power −1 is a `WoodburyInverse`; no matrix of d rows is formed.
    """

    rows: Float[Tensor, "r d"]
    scale: float
    lam: float | Float[Tensor, ""]

    @property
    def size(self) -> int:
        """d."""
        return self.rows.shape[1]


@dataclass(frozen=True, eq=False)
class WoodburyInverse(Operator):
    """(I − rowsᵀ inner rows)/λ = (scale · rowsᵀ rows + λI)⁻¹ with inner = (λ/scale · I + rows rowsᵀ)⁻¹.

    Sherman, Morrison and Woodbury (Ren 2022, eq. 5.6–5.7); a product costs 4rd + 2r² operations.
    """

    rows: Float[Tensor, "r d"]
    inner: Float[Tensor, "r r"]
    lam: float | Float[Tensor, ""]

    @property
    def size(self) -> int:
        """d."""
        return self.rows.shape[1]


@along.register
def _(operator: Woodbury, x: Float[Tensor, "l d r"]) -> Float[Tensor, "l d r"]:
    return operator.rows.mT @ (operator.rows @ x * operator.scale) + x * operator.lam


@along.register
def _(operator: WoodburyInverse, x: Float[Tensor, "l d r"]) -> Float[Tensor, "l d r"]:
    return (x - operator.rows.mT @ (operator.inner @ (operator.rows @ x))) / operator.lam


@trace.register
def _(operator: Woodbury) -> float:
    squares = sum(rows.square().sum().item() for _, rows in pieces(operator.rows[None]))
    return operator.scale * squares + float(operator.lam) * operator.size
