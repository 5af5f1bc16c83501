"""scale · rowsᵀ rows + λI for display: eigenvalues, diagonal and matrix of a `Woodbury`, each the low-rank one's plus
λ.

Importing this registers them.
"""

from __future__ import annotations

from torch import Tensor

from curvlab.operators.diagonal import diagonal
from curvlab.operators.eigenvalues import eigenvalues
from curvlab.operators.matrix import matrix
from curvlab.operators.operator import LowRank
from curvlab.operators.woodbury import Woodbury
from curvlab.shapes import Float


@eigenvalues.register
def _(operator: Woodbury) -> Float[Tensor, " d"]:
    return eigenvalues(_undamped(operator)) + float(operator.lam)


@diagonal.register
def _(operator: Woodbury) -> Float[Tensor, " d"]:
    return diagonal(_undamped(operator)) + float(operator.lam)


@matrix.register
def _(operator: Woodbury) -> Float[Tensor, "d d"]:
    written = matrix(_undamped(operator))
    written.diagonal().add_(float(operator.lam))
    return written


def _undamped(operator: Woodbury) -> LowRank:
    return LowRank(operator.rows, operator.scale)
