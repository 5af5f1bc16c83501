"""xᵀx by blocks: only the upper triangle is multiplied, the lower one is its mirror.

The diagonal is halved recursively and the off-diagonal rectangle of each halving is one matrix product, so that nearly
half of the operations of `x.T @ x` are never done (BLAS does have this product, syrk, but torch does not offer it).
A sum over batches needs the mirror only once: it adds up `upper_gram`s and mirrors the sum.
"""

from __future__ import annotations

import torch
from torch import Tensor

from curvlab.shapes import Float

__all__ = ["finished", "gram", "mirrored", "upper_gram"]

# Below this width one product beats two halves and a rectangle: measured in float32 and float64 for 512 to 65536 rows.
LEAF = 128
# Rows transposed at a time.
STRIP = 64


def gram(x: Float[Tensor, "*g rows d"]) -> Float[Tensor, "*g d d"]:
    """gram(x) = xᵀx, exactly symmetric, in the dtype of x, without a graph.

    Args:
        x: rows to multiply with themselves; any number of leading batch axes. Views whose rows or columns are strided
            (`x[::2]`, `x.mT`) are read in place, without a copy.

    Returns:
        The sum over rows of row rowᵀ. Equal to its transpose bit for bit.
    """
    return mirrored(upper_gram(x))


@torch.no_grad()
def upper_gram(x: Float[Tensor, "*g rows d"]) -> Float[Tensor, "*g d d"]:
    """The upper triangle of xᵀx; what stands below the diagonal means nothing. Arguments as in `gram`."""
    out = x.new_empty(*x.shape[:-2], x.shape[-1], x.shape[-1])
    flat = x.flatten(0, -3) if x.dim() > 3 else x
    view = out.view(*flat.shape[:-2], *out.shape[-2:])
    if flat.dim() == 3 and flat.shape[0] == 1:  # a batch of one: plain products are faster than batched ones
        flat, view = flat[0], view[0]
    _fill(flat, view)
    return out


@torch.no_grad()
def mirrored(square: Float[Tensor, "*g d d"]) -> Float[Tensor, "*g d d"]:
    """`square` with its upper triangle copied to the lower one, in place."""
    d = square.shape[-1]
    if d <= LEAF:
        upper = square.triu()
        return square.copy_(upper.add_(upper.triu(1).mT))
    half = d // 2
    mirrored(square[..., :half, :half])
    mirrored(square[..., half:, half:])
    upper, lower = square[..., :half, half:], square[..., half:, :half]
    for i in range(0, half, STRIP):  # transposing all at once misses the cache at every element: five times slower
        lower[..., i : i + STRIP] = upper[..., i : i + STRIP, :].mT
    return square


@torch.no_grad()
def finished(
    upper: Float[Tensor, "*g d d"],
    divisor: float,
    dtype: torch.dtype | None = None,
    border: tuple[Float[Tensor, "*g d"], float] | None = None,
) -> Float[Tensor, "*g e e"]:
    """The symmetric matrix with the upper triangle of `upper`, over `divisor`: a new tensor, written once.

    Large factors cost what their memory costs: scaling, converting and mirroring one after another would go over it
    three times.

    Args:
        upper: what stands below its diagonal means nothing.
        divisor: of all entries.
        dtype: of the result; None for that of `upper`.
        border: (r, c): one more row and column r, with c in the corner (e = d + 1); e = d without.
    """
    d, wide = upper.shape[-1], 0 if border is None else 1
    out = upper.new_empty(*upper.shape[:-2], d + wide, d + wide, dtype=dtype)
    inner = out[..., :d, :d]
    step = STRIP if d > 2 * LEAF and upper.device.type == "cpu" else max(d, 1)  # a strip stays in the cache
    for i in range(0, d, step):
        strip = inner[..., i : i + step, i:]
        strip.copy_(upper[..., i : i + step, i:]).div_(divisor)
        square = strip[..., : strip.shape[-2]]
        triangle = square.triu()
        square.copy_(triangle.add_(triangle.triu(1).mT))
        inner[..., i + step :, i : i + step] = strip[..., strip.shape[-2] :].mT
    if border is not None:
        out[..., :d, d] = out[..., d, :d] = border[0] / divisor
        out[..., d, d] = border[1] / divisor
    return out


def _fill(x: Tensor, out: Tensor) -> None:
    """Write the upper triangle of xᵀx into `out`, a view of the result's diagonal."""
    d = x.shape[-1]
    if d <= LEAF:
        torch.matmul(x.mT, x, out=out)
        return
    half = d // 2
    left, right = x[..., :half], x[..., half:]
    _fill(left, out[..., :half, :half])
    _fill(right, out[..., half:, half:])
    torch.matmul(left.mT, right, out=out[..., :half, half:])
