"""Σ ā and Σ āāᵀ over all examples n and output positions t of a convolution's patches ā, exactly, by the cheapest road.

The block of Σ āāᵀ for kernel offsets u and v is Σ_t x[t + u] x[t + v]ᵀ: it depends on u and v only through their difference δ, but for
the pixels near the border that one window visits and another does not. So the two roads are

offsets: products of the image with itself shifted by δ, for half of the differences (the others are transposes), each cut into the
    rectangles of pixels that windows have in common. No patch is formed and nothing is subtracted: the block of every pair of offsets
    is a sum of rectangles. Stride, dilation and the spread image of a transposed convolution only change which pixels meet.
    A 3×3 kernel needs 13 products of C×C per pixel; rows of patches need 81/2, and nine copies of the image.
patches: the rows themselves and half of their product, for few channels per group, where products of C×C are too small.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from math import prod

import torch
from torch import Tensor

from curvlab.layers.patches import Geometry, patches, windows
from curvlab.operators.gram import gram, symmetric
from curvlab.shapes import Float

__all__ = ["by_offsets", "by_patches", "patch_second_moment", "patch_sum"]

# Patch entries formed at a time, where the image itself has fewer.
BUDGET = 2**22
# Kernels longer than this along an axis go by patches: the pairs of their offsets are too many to list.
LONGEST = 64

Range = tuple[int, int]
"""First index and the index after the last."""


@dataclass(frozen=True)
class Meeting:
    """The pixels q = residue + step·j and q + delta of one axis, which meet under the kernel offsets (u, v) for j in runs[u, v]."""

    residue: int
    delta: int
    runs: dict[tuple[int, int], Range]

    @cached_property
    def cuts(self) -> list[int]:
        """Ends of all runs in order: every run is a union of the segments between neighbouring cuts."""
        return sorted({end for run in self.runs.values() for end in run})

    @cached_property
    def segments(self) -> dict[tuple[int, int], Range]:
        """The runs, counted in segments."""
        at = {cut: i for i, cut in enumerate(self.cuts)}
        return {pair: (at[first], at[last]) for pair, (first, last) in self.runs.items()}


def meetings(geometry: Geometry, axis: int, size: int, outputs: int) -> list[Meeting]:
    """All pairs of pixels of one axis that some window sees under two of its offsets, by difference and residue modulo the step."""
    step, spacing, low = geometry.step[axis], geometry.spacing[axis], geometry.padding[axis][0]
    first_pixels = [geometry.dilation[axis] * u - low for u in range(geometry.kernel[axis])]
    if geometry.transposed:
        first_pixels.reverse()
    found: dict[tuple[int, int], dict[tuple[int, int], Range]] = {}
    for (u, a), (v, b) in product(enumerate(first_pixels), repeat=2):
        delta, between = divmod(b - a, spacing)
        if between:  # where one of the two falls on a pixel of the spread image, the other falls on a zero
            continue
        residue = a % step
        first = max(0, -delta, -(-a // spacing))
        last = min(size - 1, size - 1 - delta, (a + step * (outputs - 1)) // spacing)
        run = (-((residue - first) // step), (last - residue) // step + 1)
        if run[0] < run[1]:
            found.setdefault((residue, delta), {})[u, v] = run
    return [Meeting(residue, delta, runs) for (residue, delta), runs in found.items()]


@torch.no_grad()
def patch_second_moment(
    x: Float[Tensor, "n c *spatial"], geometry: Geometry, dtype: torch.dtype = torch.float32
) -> tuple[Float[Tensor, "g d"], Float[Tensor, "g d d"], int]:
    """(Σ ā, Σ āāᵀ, n·T) over all examples and output positions, by the road that is estimated to be faster.

    Args:
        x: batched input of the convolution, without the geometry's padding.
        geometry: of the convolution; features are in the order of `patches`.
        dtype: of the products and their sums, float32 or float64; x is converted once.

    Returns:
        Sums (not means), per group: Σ ā `[g, d]`, Σ āāᵀ `[g, d, d]`, symmetric bit for bit, and the number of patches.
    """
    outputs = geometry.output_shape(x.shape[2:])
    road = by_offsets if _offsets_are_faster(x.shape, geometry) else by_patches
    return patch_sum(x, geometry, dtype), road(x, geometry, dtype), x.shape[0] * prod(outputs)


@torch.no_grad()
def patch_sum(x: Float[Tensor, "n c *spatial"], geometry: Geometry, dtype: torch.dtype) -> Float[Tensor, "g d"]:
    """Σ_{n,t} ā[g,n,t], from the patches of the one image Σ_n x[n]: padding is linear."""
    return patches(x.sum(0, keepdim=True, dtype=dtype), geometry).sum((1, 2))


@torch.no_grad()
def by_patches(x: Float[Tensor, "n c *spatial"], geometry: Geometry, dtype: torch.dtype) -> Float[Tensor, "g d d"]:
    """Σ_{n,t} āāᵀ from the rows ā themselves, as many examples at a time as have no more patch entries than x has entries."""
    entries = x[:1].numel() * prod(geometry.kernel) * prod(geometry.output_shape(x.shape[2:])) // prod(x.shape[2:])
    parts = x.split(max(1, max(x.numel(), BUDGET) // max(1, entries)))
    second = gram(patches(parts[0].to(dtype), geometry).flatten(1, 2))
    for part in parts[1:]:
        second += gram(patches(part.to(dtype), geometry).flatten(1, 2))
    return second


@torch.no_grad()
def by_offsets(x: Float[Tensor, "n c *spatial"], geometry: Geometry, dtype: torch.dtype) -> Float[Tensor, "g d d"]:
    """Σ_{n,t} ā[u] ā[v]ᵀ = Σ x[p] x[p + δ]ᵀ over the pixels p that offset u visits while offset v visits p + δ."""
    x, geometry = _explicit(x, geometry)
    phases: dict[tuple[int, ...], Tensor] = {}

    def phase(residues: tuple[int, ...]) -> Tensor:
        if residues not in phases:
            phases[residues] = _position_major(x, geometry, residues, dtype)
        return phases[residues]

    blocks: dict[tuple[int, int], Tensor] = {}
    for meeting in _half(geometry, x.shape[2:]):
        moved = [divmod(m.residue + m.delta, step) for m, step in zip(meeting, geometry.step, strict=True)]
        here, there = phase(tuple(m.residue for m in meeting)), phase(tuple(residue for _, residue in moved))
        rectangles = _Rectangles(here, there, [m.cuts for m in meeting], [shift for shift, _ in moved])
        for pair in product(*(m.segments.items() for m in meeting)):
            u, v = (_ravel([offsets[side] for offsets, _ in pair], geometry.kernel) for side in (0, 1))
            block = rectangles.total(tuple(box for _, box in pair))
            blocks[u, v] = block if u != v else symmetric(block)
            blocks[v, u] = blocks[u, v].mT
    return _assemble(blocks, x, geometry, dtype)


def _explicit(x: Tensor, geometry: Geometry) -> tuple[Tensor, Geometry]:
    """The same patches with zeros as the only padding: they need not be stored, other values must."""
    if geometry.padding_mode == "zeros":
        return x, geometry
    return geometry.pad(x), replace(geometry, padding=((0, 0),) * len(geometry.kernel), padding_mode="zeros")


def _half(geometry: Geometry, spatial: tuple[int, ...]) -> Iterator[tuple[Meeting, ...]]:
    """One meeting per axis for all differences δ that are zero or whose first other entry is positive."""
    outputs = geometry.output_shape(spatial)
    axes = [meetings(geometry, axis, size, outputs[axis]) for axis, size in enumerate(spatial)]
    still = (0,) * len(spatial)
    return (meeting for meeting in product(*axes) if tuple(m.delta for m in meeting) >= still)


def _offsets_are_faster(shape: tuple[int, ...], geometry: Geometry) -> bool:
    """Compare estimates in nanoseconds, fitted to 40 float32 shapes on two cores; float64 about doubles both sides."""
    if max(geometry.kernel) > LONGEST:
        return False
    n, groups, *spatial = shape[0], geometry.groups, *shape[2:]
    outputs, taps, channels = geometry.output_shape(spatial), prod(geometry.kernel), shape[1] // groups
    # Non-zero padding enlarges the image a little, which is not worth the exact count.
    meets = list(_half(geometry, tuple(spatial)))
    products = n * groups * channels * sum(prod(m.cuts[-1] - m.cuts[0] for m in meet) for meet in meets)
    rectangles = sum(prod(len(m.cuts) - 1 for m in meet) for meet in meets)
    result = groups * (channels * taps) ** 2
    entries = n * groups * prod(outputs) * channels * taps
    offsets = products * (0.2 + channels / 130 + 0.7 / channels) + 30e3 * rectangles + 8e3 * taps**2 + 2 * result
    rows = entries * (0.3 + 8 / outputs[-1] + channels * taps / 200) + 3e5 + 3 * result
    return offsets < rows


class _Rectangles:
    """Σ_p x[p] x[p + δ]ᵀ over boxes of segments: each rectangle is multiplied once, each sum of rectangles is added once."""

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
                halves = [(*box[:axis], part, *box[axis + 1 :]) for part in ((low, at), (at, high))]
                return self.total(halves[0]) + self.total(halves[1])
        ends = [(cut[low], cut[high]) for cut, (low, high) in zip(self.cuts, box, strict=True)]
        moved = [slice(i + by, j + by) for (i, j), by in zip(ends, self.shift, strict=True)]
        return _product(_cut(self.here, [slice(*end) for end in ends]), _cut(self.there, moved))


def _cut(pixels: Tensor, ranges: list[slice]) -> Tensor:
    """pixels[*lead, :, last] for the ranges of a rectangle."""
    return pixels[(*ranges[:-1], slice(None), ranges[-1])]


def _product(a: Tensor, b: Tensor) -> Tensor:
    """out[g] = Σ_{p,n} a[p,g,n] b[p,g,n]ᵀ for a and b `[*lead, g, last, n, c]`."""
    *lead, groups, width, n, channels = a.shape
    if width * n < channels:  # products of few rows are all result: copy the rows together
        left, right = (t.movedim(-4, 0).reshape(groups, -1, channels) for t in (a, b))
        return torch.bmm(left.mT, right)
    if len(lead) > 1:
        total = _product(a[0], b[0])
        for left, right in zip(a[1:].unbind(0), b[1:].unbind(0), strict=True):
            total += _product(left, right)
        return total
    left, right = (t.flatten(-3, -2).flatten(0, -3) if lead else t.flatten(-3, -2) for t in (a, b))
    return torch.bmm(left.mT, right).view(-1, groups, channels, channels).sum(0)


def _position_major(x: Tensor, geometry: Geometry, residues: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """x[n, (g c), *(residue + step·j)] as [*j[:-1], g, j[-1], n, c]: rows n of one pixel stay together, so every shift is a view."""
    strided = (slice(residue, None, step) for residue, step in zip(residues, geometry.step, strict=True))
    part = x[(..., *strided)].unflatten(1, (geometry.groups, -1))
    n, groups, channels, *lead, last = part.shape
    out = torch.empty(*lead, groups, last, n, channels, dtype=dtype, device=x.device)
    chunk = max(1, 2**18 // max(1, part[0].numel()))  # read what fits in the cache: three times faster than all at once
    for i in range(0, n, chunk):
        out[..., i : i + chunk, :] = part[i : i + chunk].permute(*range(3, part.dim() - 1), 1, -1, 0, 2)
    return out


def _ravel(index: list[int], shape: tuple[int, ...]) -> int:
    flat = 0
    for i, size in zip(index, shape, strict=True):
        flat = flat * size + i
    return flat


def _assemble(blocks: dict[tuple[int, int], Tensor], x: Tensor, geometry: Geometry, dtype: torch.dtype) -> Tensor:
    """out[g, c·K + u, c'·K + v] = blocks[u, v][g, c, c'], zero where no pixels meet."""
    groups, channels, offsets = geometry.groups, x.shape[1] // geometry.groups, prod(geometry.kernel)
    out = torch.empty(groups, channels, offsets, channels, offsets, dtype=dtype, device=x.device)
    zero = out.new_zeros(groups, channels, channels)
    row = out.new_empty(offsets, groups, channels, channels)
    for u in range(offsets):  # a row of blocks at a time: block by block each cache line would be written K times
        torch.stack([blocks.get((u, v), zero) for v in range(offsets)], out=row)
        out[:, :, u] = row.permute(1, 2, 3, 0)
    return out.view(groups, channels * offsets, channels * offsets)
