"""xᵀx by blocks: only the upper triangle is multiplied, the lower one is its mirror.

The diagonal is halved recursively and the off-diagonal rectangle of each halving is one matrix product, so that nearly
half of the operations of `x.T @ x` are never done (BLAS does have this product, syrk, but torch does not offer it).
"""

from __future__ import annotations

import torch
from torch import Tensor

from curvlab.shapes import Float

__all__ = ["gram", "symmetric"]

# Below this width one product beats two halves and a rectangle: measured in float32 and float64 for 512 to 65536 rows.
LEAF = 192


@torch.no_grad()
def gram(x: Float[Tensor, "*g rows d"]) -> Float[Tensor, "*g d d"]:
    """gram(x) = xᵀx, exactly symmetric, in the dtype of x, without a graph.

    Args:
        x: rows to multiply with themselves; any number of leading batch axes. Views whose rows or columns are strided
            (`x[::2]`, `x.mT`) are read in place, without a copy.

    Returns:
        The sum over rows of row rowᵀ. Equal to its transpose bit for bit.
    """
    out = x.new_empty(*x.shape[:-2], x.shape[-1], x.shape[-1])
    batch = x.flatten(0, -3) if x.dim() > 3 else x
    _fill(batch, out.view(*batch.shape[:-2], *out.shape[-2:]))
    return out


def symmetric(square: Float[Tensor, "*g d d"]) -> Float[Tensor, "*g d d"]:
    """symmetric(S) = (S + Sᵀ)/2: a product that is symmetric up to rounding becomes so bit for bit."""
    return (square + square.mT).mul_(0.5)


def _fill(x: Tensor, out: Tensor) -> None:
    """Write xᵀx into `out`, a view of the result's diagonal."""
    d = x.shape[-1]
    if d <= LEAF:
        out.copy_(symmetric(x.mT @ x))
        return
    half = d // 2
    left, right = x[..., :half], x[..., half:]
    _fill(left, out[..., :half, :half])
    _fill(right, out[..., half:, half:])
    rectangle = out[..., :half, half:]
    torch.matmul(left.mT, right, out=rectangle)
    out[..., half:, :half] = rectangle.mT
