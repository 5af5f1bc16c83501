"""Σ ā and Σ āāᵀ over all examples and positions of a convolution's patches ā, exactly, by the cheapest of three
methods.

`shifted_products` forms no patches; `row_products`, for the commonest kernels and a few dozen channels, forms those of
one row. `patch_products` forms them all, some examples at a time; it is better for few channels per group, whose
channel products are too small, for kernels of one pixel, and for a handful of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import prod

import torch
from torch import Tensor

from curvlab.layers.lags import half_of_lags
from curvlab.layers.patches import Geometry, patches
from curvlab.layers.row_products import has_row_products, row_products
from curvlab.layers.shifted_products import shifted_products
from curvlab.linalg.gram import upper_gram
from curvlab.shapes import Float

__all__ = ["patch_products", "patch_second_moment", "patch_sum"]

Road = Callable[[Tensor, Geometry, torch.dtype], Tensor]

# Patch entries formed at a time, unless the image itself has more.
ENTRIES = 2**22
# Kernels longer than this along an axis go by patches: the pairs of their offsets are too many to list.
LONGEST = 64


@torch.no_grad()
def patch_second_moment(
    x: Float[Tensor, "n c *spatial"], geometry: Geometry, dtype: torch.dtype = torch.float32
) -> tuple[Float[Tensor, "g d"], Float[Tensor, "g d d"], int]:
    """(Σ ā, Σ āāᵀ, n·T) over all n examples and T output positions, by the method that is estimated to be the fastest.

    Args:
        x: batched input of the convolution, without the geometry's padding.
        geometry: of the convolution; features are in the order of `patches`.
        dtype: of the products and their sums, float32 or float64; x is converted once.

    Returns:
        Sums, not means, per group: Σ ā `[g, d]`, Σ āāᵀ `[g, d, d]`, of which only the upper triangle counts
        (`gram.mirrored` completes it), and the number of patches.
    """
    road = fastest(tuple(x.shape), geometry)
    return (
        patch_sum(x, geometry, dtype),
        road(x, geometry, dtype),
        x.shape[0] * prod(geometry.output_shape(x.shape[2:])),
    )


@torch.no_grad()
def patch_sum(x: Float[Tensor, "n c *spatial"], geometry: Geometry, dtype: torch.dtype) -> Float[Tensor, "g d"]:
    """Σ_{n,t} ā[g,n,t], from the patches of the one image Σ_n x[n]: every padding is linear."""
    return patches(x.sum(0, keepdim=True, dtype=dtype), geometry).sum((1, 2))


@torch.no_grad()
def patch_products(x: Float[Tensor, "n c *spatial"], geometry: Geometry, dtype: torch.dtype) -> Float[Tensor, "g d d"]:
    """Σ_{n,t} āāᵀ from the rows ā, some examples at a time: about as many entries as x has."""
    entries = x.shape[1] * prod(geometry.kernel) * prod(geometry.output_shape(x.shape[2:]))
    parts = torch.split(x, max(1, max(x.numel(), ENTRIES) // entries))
    second = upper_gram(patches(parts[0].to(dtype), geometry).flatten(1, 2))
    for part in parts[1:]:
        second += upper_gram(patches(part.to(dtype), geometry).flatten(1, 2))
    return second


@lru_cache(maxsize=512)  # the same in every step of a training
def fastest(shape: tuple[int, ...], geometry: Geometry) -> Road:
    """The cheapest way to Σ āāᵀ, by estimates in nanoseconds, fitted to 40 float32 shapes on two cores, those of
    `row_products` to 16 on one; float64 about doubles all sides."""
    if max(geometry.kernel) > LONGEST or (prod(geometry.kernel) == 1 and not geometry.transposed):
        return patch_products  # the patches of one pixel are the image
    n, groups, spatial = shape[0], geometry.groups, shape[2:]
    outputs, taps, channels = geometry.output_shape(spatial), prod(geometry.kernel), shape[1] // groups
    # Padding other than zeros, ignored here, adds little to these counts.
    lags = list(half_of_lags(geometry, spatial))
    pixels = n * groups * channels * sum(prod(m.cuts[-1] - m.cuts[0] for m in lag) for lag in lags)
    rectangles = sum(prod(len(m.cuts) - 1 for m in lag) for lag in lags)
    result = groups * (channels * taps) ** 2
    entries = n * groups * prod(outputs) * channels * taps
    image = n * groups * channels * prod(spatial)
    costs: dict[Road, float] = {
        shifted_products: image
        + pixels * (0.2 + channels / 130 + 0.7 / channels)
        + 30e3 * rectangles
        + 8e3 * taps**2
        + 2 * result,
        patch_products: entries * (0.3 + 8 / outputs[-1] + channels * taps / 200) + 3e5 + 1.5 * result,
    }
    if has_row_products(geometry, spatial[0]):
        costs[row_products] = 4.5e5 + entries * channels * geometry.kernel[1] / 30
    return min(costs, key=lambda road: costs[road])
