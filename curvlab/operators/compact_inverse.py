"""H = γI + Wᵀ M W: an L-BFGS inverse in its compact form, so that its product with a matrix is four matrix products.

The two-loop recursion would take 4p products of a matrix with a vector for every column (Ren 2022, section 2.3, after
Byrd, Nocedal & Schnabel 1994, Theorem 2.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from curvlab.linalg.grouped_product import grouped_product
from curvlab.operators.operator import Operator
from curvlab.operators.product import along
from curvlab.shapes import Float


@dataclass(frozen=True, eq=False)
class CompactInverse(Operator):
    """blockdiag_g(scale·I + rows[g]ᵀ middle[g] rows[g]).

    Attributes:
        rows: W = [S; γY], the steps and then the changes of the gradient, oldest first.
        middle: M = [[R⁻ᵀ(D + γYYᵀ)R⁻¹, −R⁻ᵀ], [−R⁻¹, 0]], R = triu(SYᵀ), D = diag(SYᵀ), pairs being rows here.
        scale: γ, a number on the device.
    """

    rows: Float[Tensor, "g m d"]
    middle: Float[Tensor, "g m m"]
    scale: Float[Tensor, ""]

    @property
    def size(self) -> int:
        """g · d."""
        return self.rows.shape[0] * self.rows.shape[2]


def compact_inverse(s: Float[Tensor, "g p d"], y: Float[Tensor, "g p d"], scale: Float[Tensor, ""]) -> CompactInverse:
    """The inverse that p BFGS updates make of γI.

    The p × p matrices are worked out in float64, as R is ill-conditioned where pairs resemble each other.

    Args:
        s: steps, oldest first; a pair of zeros stands for none.
        y: changes of the gradient, sᵀy > 0.
        scale: γ.
    """
    both = s.double() @ y.double().mT
    d = both.diagonal(dim1=1, dim2=2)
    r = both.triu() + torch.diag_embed((d == 0).double())
    eye = torch.eye(s.shape[1], dtype=r.dtype, device=r.device)
    inverse = torch.linalg.solve_triangular(r, eye.expand_as(r), upper=True)
    rows = torch.cat([s, scale * y], dim=1)
    gram = torch.diag_embed(d) + scale * (y.double() @ y.double().mT)
    corner = inverse.mT @ gram @ inverse
    lower = torch.cat([-inverse, torch.zeros_like(inverse)], dim=2)
    middle = torch.cat([torch.cat([corner, -inverse.mT], dim=2), lower], dim=1)
    return CompactInverse(rows, middle.to(s.dtype), scale)


@along.register
def _(operator: CompactInverse, x: Float[Tensor, "l d r"]) -> Float[Tensor, "l d r"]:
    groups, _, d = operator.rows.shape
    columns = x.reshape(x.shape[0], groups, d, -1).permute(1, 2, 0, 3).reshape(groups, d, -1)
    small = grouped_product(operator.middle, grouped_product(operator.rows, columns))
    y = operator.scale * columns + grouped_product(operator.rows.mT, small)
    return y.view(groups, d, x.shape[0], x.shape[2]).permute(2, 0, 1, 3).reshape(x.shape)
