"""Σ āāᵀ without patches: products of the image with itself shifted by δ, cut where windows leave the image.

The block of Σ āāᵀ for kernel offsets u and v is Σ_t x[t + u] x[t + v]ᵀ. It depends on u and v only through δ = v − u,
but for the pixels near the border that one window visits and another does not. So each shifted product is cut into the
rectangles of pixels that windows have in common, and every block is a sum of rectangles: nothing is formed twice and
nothing is subtracted. Stride, dilation and the spread image of a transposed convolution only change which pixels meet.
A 3×3 kernel needs 13 products of C×C per pixel; rows of patches need 81/2, half of 9·9, and nine copies of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from math import prod

import torch
from torch import Tensor

from curvlab.layers.lags import Range, half_of_lags
from curvlab.layers.patches import Geometry
from curvlab.shapes import Float

__all__ = ["shifted_products"]

# Elements rearranged at a time: what fits in the cache goes three times faster than all at once.
TILE = 2**18
# Channels whose rows of the result are written together: what lies left of them is below the diagonal and left out.
ROWS = 128


@torch.no_grad()
def shifted_products(
    x: Float[Tensor, "n c *spatial"], geometry: Geometry, dtype: torch.dtype
) -> Float[Tensor, "g d d"]:
    """Σ_{n,t} ā[u] ā[v]ᵀ = Σ_{n,p} x[p] x[p + δ]ᵀ over the pixels p that u visits while v visits p + δ.

    Args:
        x: batched input of the convolution, without the geometry's padding.
        geometry: of the convolution.
        dtype: of the products and their sums; x is converted once.

    Returns:
        The sum per group, in the feature order of `patches`; only its upper triangle counts (`gram.mirrored` completes
        it). Besides it, memory holds a copy of x and the blocks that differ: 29 of the 81 of a padded 3×3 kernel.
    """
    if geometry.padding_mode != "zeros":  # zeros need not be stored, other values must
        x = geometry.pad(x)
        geometry = replace(geometry, padding=((0, 0),) * len(geometry.kernel), padding_mode="zeros")
    phases: dict[tuple[int, ...], Tensor] = {}

    def phase(residues: tuple[int, ...]) -> Tensor:
        if residues not in phases:
            phases[residues] = _position_major(x, geometry, residues, dtype)
        return phases[residues]

    blocks: dict[tuple[int, int], Tensor] = {}
    for lag in half_of_lags(geometry, tuple(x.shape[2:])):
        moved = [divmod(m.residue + m.delta, step) for m, step in zip(lag, geometry.step, strict=True)]
        here, there = phase(tuple(m.residue for m in lag)), phase(tuple(residue for _, residue in moved))
        rectangles = _Rectangles(here, there, [m.cuts for m in lag], [shift for shift, _ in moved])
        for pair in product(*(m.segments.items() for m in lag)):
            u, v = (_ravel([offsets[side] for offsets, _ in pair], geometry.kernel) for side in (0, 1))
            block = rectangles.total(tuple(box for _, box in pair))
            blocks[v, u], blocks[u, v] = block.mT, block
    return _assemble(blocks, x, geometry, dtype)


class _Rectangles:
    """Σ_p x[p] x[p + δ]ᵀ over boxes of segments: each rectangle is multiplied once, each sum added once."""

    def __init__(self, here: Tensor, there: Tensor, cuts: list[list[int]], shift: list[int]) -> None:
        self.here, self.there, self.cuts, self.shift = here, there, cuts, shift
        self.known: dict[tuple[Range, ...], Tensor] = {}

    def total(self, box: tuple[Range, ...]) -> Tensor:
        if box not in self.known:
            self.known[box] = self._compute(box)
        return self.known[box]

    def _compute(self, box: tuple[Range, ...]) -> Tensor:
        for axis, (low, high) in enumerate(box):
            if high - low > 1:  # windows leave the image at one side or the other: grow from the side they share
                at = high - 1 if low == 0 else low + 1
                first, rest = ((*box[:axis], part, *box[axis + 1 :]) for part in ((low, at), (at, high)))
                return self.total(first) + self.total(rest)
        ends = [(cut[low], cut[high]) for cut, (low, high) in zip(self.cuts, box, strict=True)]
        moved = [slice(i + by, j + by) for (i, j), by in zip(ends, self.shift, strict=True)]
        return _product(_cut(self.here, [slice(*end) for end in ends]), _cut(self.there, moved))


def _cut(pixels: Tensor, ranges: Sequence[slice]) -> Tensor:
    """The rectangle pixels[*lead, :, last] of a position-major image."""
    return pixels[(*ranges[:-1], slice(None), ranges[-1])]


def _product(a: Tensor, b: Tensor) -> Tensor:
    """out[g] = Σ_{p,n} a[p,g,n] b[p,g,n]ᵀ for views a and b `[*lead, g, last, n, c]`."""
    *lead, groups, width, n, channels = a.shape
    if 2 * width * n < channels:  # products of few rows are mostly result: bring the rows together
        left, right = (t.movedim(-4, 0).reshape(groups, -1, channels) for t in (a, b))
        return torch.bmm(left.mT, right)
    if len(lead) > 1 or (lead and width * n < channels):
        total = _product(a[0], b[0])
        for left, right in zip(a[1:], b[1:], strict=True):
            total += _product(left, right)
        return total
    # A batch of products and then a sum: BLAS does small products side by side, and no row is copied.
    left, right = (t.reshape(prod(lead) * groups, width * n, channels) for t in (a, b))
    return torch.bmm(left.mT, right).view(-1, groups, channels, channels).sum(0)


def _position_major(x: Tensor, geometry: Geometry, residues: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """x[n, (g c), *(residue + step·j)] as [*j[:-1], g, j[-1], n, c]: examples are rows, so shifts are views."""
    strided = (slice(residue, None, step) for residue, step in zip(residues, geometry.step, strict=True))
    part = x[(slice(None), slice(None), *strided)]
    n, groups, channels, *lead, last = x.shape[0], geometry.groups, x.shape[1] // geometry.groups, *part.shape[2:]
    part = part.view(n, groups, channels, *lead, last)
    out = torch.empty(*lead, groups, last, n, channels, dtype=dtype, device=x.device)
    examples = max(1, TILE // prod(part.shape[1:]))
    for i in range(0, n, examples):
        out[..., i : i + examples, :] = part[i : i + examples].permute(*range(3, part.dim() - 1), 1, -1, 0, 2)
    return out


def _ravel(index: list[int], shape: tuple[int, ...]) -> int:
    """Row-major position of a kernel offset, as `reshape` counts it."""
    flat = 0
    for i, size in zip(index, shape, strict=True):
        flat = flat * size + i
    return flat


def _assemble(blocks: dict[tuple[int, int], Tensor], x: Tensor, geometry: Geometry, dtype: torch.dtype) -> Tensor:
    """out[g, c·K + u, c'·K + v] = blocks[u, v][g, c, c'] for c' ≥ c, zero where no pixels meet."""
    groups, channels, taps = geometry.groups, x.shape[1] // geometry.groups, prod(geometry.kernel)
    out = torch.empty(groups, channels, taps, channels, taps, dtype=dtype, device=x.device)
    zero = out.new_zeros(groups, channels, channels)
    for c in range(0, channels, ROWS):
        for u in range(taps):  # K blocks at once: block by block, every cache line would be written K times
            row = [blocks.get((u, v), zero)[:, c : c + ROWS, c:] for v in range(taps)]
            out[:, c : c + ROWS, u, c:] = torch.stack(row).permute(1, 2, 3, 0)
    return out.view(groups, channels * taps, channels * taps)
