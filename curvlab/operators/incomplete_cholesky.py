"""P = W̃W̃ᵀ ≈ M⁻¹, W̃ = [[V^-½, 0], [−μᵀV^-½, 1]]: the incomplete Cholesky factor of LNB, section 3.3 with the diagonal
of 3.5.

M = E[āāᵀ] of ā = (a, 1) has the inverse factor W = [[Σ^-½, 0], [−μᵀΣ^-½, 1]]; W̃ has V = diag Σ in place of Σ and keeps
the mean, so that W̃ᵀā = (V^-½(a − μ), 1) are standardised features. Without a bias P = D⁻¹, D = E[a⊙a].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from curvlab.operators.operator import Operator
from curvlab.operators.product import along
from curvlab.shapes import Float


@dataclass(frozen=True, eq=False)
class IncompleteCholesky(Operator):
    """P of one row of W̄ per group; `precondition` applies it to all rows of W̄.

    Attributes:
        inverse: V⁻¹ `[g, i]`, or D⁻¹; zero for a feature without any.
        mean: μ `[g, i]`, None without a bias.
    """

    inverse: Float[Tensor, "g i"]
    mean: Float[Tensor, "g i"] | None

    @property
    def size(self) -> int:
        """g·j."""
        groups, width = self.inverse.shape
        return groups * (width + (self.mean is not None))


def incomplete_cholesky(
    mean: Float[Tensor, "g i"], square: Float[Tensor, "g i"], biased: bool, ridge: float = 0.0
) -> IncompleteCholesky:
    """P for the metric with γ on the diagonal of its weights, which is a γ on V or D.

    Args:
        mean: μ = E[a].
        square: χ = E[a⊙a].
        biased: whether a 1 is appended to the features.
        ridge: γ.
    """
    variance = torch.addcmul(square, mean, mean, value=-1).clamp_(min=0).add_(ridge) if biased else square + ridge
    # What is left of a constant feature is rounding. Its row of M says nothing that the bias's does not.
    known = variance > 4 * torch.finfo(square.dtype).eps * square
    inverse = torch.where(known, variance.reciprocal(), 0.0)
    return IncompleteCholesky(inverse, mean if biased else None)


def precondition(operator: IncompleteCholesky, w: Float[Tensor, "g o j"]) -> Float[Tensor, "g o j"]:
    """W̄P: every row r = (r_a, r_b) becomes (u, r_b − μᵀu), u = V⁻¹(r_a − μ r_b)."""
    inverse, mean = operator.inverse[:, None], operator.mean
    if mean is None:
        return w * inverse
    z = torch.empty_like(w)
    weight, bias, u = w[..., :-1], w[..., -1:], z[..., :-1]
    torch.addcmul(weight, bias, mean[:, None], value=-1, out=u).mul_(inverse)
    torch.sub(bias, torch.bmm(u, mean[..., None]), out=z[..., -1:])
    return z


@along.register
def _(operator: IncompleteCholesky, x: Float[Tensor, "l d r"]) -> Float[Tensor, "l d r"]:
    rows = x.movedim(1, 2).reshape(x.shape[0] * x.shape[2], operator.inverse.shape[0], -1).transpose(0, 1)
    return precondition(operator, rows).transpose(0, 1).reshape(x.shape[0], x.shape[2], x.shape[1]).movedim(2, 1)
