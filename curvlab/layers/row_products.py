"""Σ āāᵀ of three rows of pixels by patches that are one row high: for kernels three high, padded by one, with stride 1.

The block for the kernel rows u and v = u + δ is Σ_r A[r] A[r + δ]ᵀ with A[r] the patches of pixel row r, over those
that u visits: all of them but the first for u = 2 and the last for u = 0. As the padding is zero, so is what is paired
with it, and images can stand on top of each other in one long matrix: three products of it with itself, moved by 0, 1
and 2 rows, are all. A 3×3 kernel needs 27 products of C×C per pixel and three copies of the image, in few operations:
what counts for a few dozen channels. Nothing is subtracted.
"""

from __future__ import annotations

import torch
from torch import Tensor

from curvlab.layers.patches import Geometry
from curvlab.shapes import Float

__all__ = ["has_row_products", "row_products"]


def has_row_products(geometry: Geometry, rows: int) -> bool:
    """Whether `row_products` knows kernels of this kind, on images of so many rows."""
    return (
        len(geometry.kernel) == 2
        and geometry.kernel[0] == 3
        and geometry.dilation[0] == 1
        and geometry.stride == (1, 1)
        and geometry.padding[0] == (1, 1)
        and geometry.padding_mode == "zeros"
        and geometry.groups == 1
        and not geometry.transposed
        and rows > 1
    )


@torch.no_grad()
def row_products(x: Float[Tensor, "n c h w"], geometry: Geometry, dtype: torch.dtype) -> Float[Tensor, "g d d"]:
    """Σ_{n,t} āāᵀ, both triangles.

    Args:
        x: batched input of the convolution, without the geometry's padding.
        geometry: of the convolution; one that `has_row_products`.
        dtype: of the products and their sums.
    """
    n, channels, height, width = x.shape
    taps, (low, high), dilation = geometry.kernel[1], geometry.padding[1], geometry.dilation[1]
    # Channels last: a long matrix is multiplied faster by its transpose than the other way round.
    image = torch.zeros(n, height + 2, max(0, low) + width + max(0, high), channels, dtype=dtype, device=x.device)
    image[:, 1:-1, max(0, low) : max(0, low) + width] = x.permute(0, 2, 3, 1)
    image = image[:, :, max(0, -low) : image.shape[2] - max(0, -high)]
    width = image.shape[2] - dilation * (taps - 1)
    patches = torch.cat([image[:, :, tap * dilation : tap * dilation + width] for tap in range(taps)], dim=3)
    rows = patches.view(-1, taps * channels)
    one = rows[:-width].mT @ rows[width:]
    two = rows[: -2 * width].mT @ rows[2 * width :]
    first, last = (patches[:, r].reshape(-1, rows.shape[1]) for r in (1, height))
    first, last = first.mT @ first, last.mT @ last
    patches[:, 1] = 0  # what the outer kernel rows do not both visit
    patches[:, height] = 0
    common = rows.mT @ rows
    top, bottom = common + first, common + last
    blocks = torch.stack([top, one, two, one.mT, top + last, one, two.mT, one.mT, bottom])
    shaped = blocks.view(3, 3, taps, channels, taps, channels)
    size = 3 * taps * channels
    return shaped.permute(3, 0, 2, 5, 1, 4).reshape(1, size, size)
