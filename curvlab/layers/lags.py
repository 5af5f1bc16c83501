"""Lags δ of a convolution: x[q] x[q + δ]ᵀ belongs to Σ āāᵀ when some window sees q under offset u and q + δ
under offset v.

Along one axis these pixels are a run q = residue + step·j, j = first … last, and the runs of the pairs (u, v) with the
same δ differ only at the ends, where one window leaves the image before another. Pure integer arithmetic, axis by axis.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from curvlab.layers.patches import Geometry

__all__ = ["Lag", "Range", "half_of_lags", "lags"]

Range = tuple[int, int]
"""First index and the index after the last."""


@dataclass(frozen=True)
class Lag:
    """The pixels q = residue + step·j and q + delta of one axis meet under the offsets (u, v) for j in runs[u, v]."""

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


def lags(geometry: Geometry, axis: int, size: int, outputs: int) -> list[Lag]:
    """All lags of an axis with `size` pixels and `outputs` positions; pixels of the zero padding meet nothing."""
    step, spacing, low = geometry.step[axis], geometry.spacing[axis], geometry.padding[axis][0]
    origins = [geometry.dilation[axis] * u - low for u in range(geometry.kernel[axis])]
    if geometry.transposed:
        origins.reverse()
    found: dict[tuple[int, int], dict[tuple[int, int], Range]] = {}
    for (u, a), (v, b) in product(enumerate(origins), repeat=2):
        delta, between = divmod(b - a, spacing)
        if between:  # when u falls on a pixel of the spread image, v falls on a zero
            continue
        residue = a % step
        first = max(0, -delta, -(-a // spacing))
        last = min(size - 1, size - 1 - delta, (a + step * (outputs - 1)) // spacing)
        run = (-((residue - first) // step), (last - residue) // step + 1)
        if run[0] < run[1]:
            found.setdefault((residue, delta), {})[u, v] = run
    return [Lag(residue, delta, runs) for (residue, delta), runs in found.items()]


def half_of_lags(geometry: Geometry, spatial: tuple[int, ...]) -> Iterator[tuple[Lag, ...]]:
    """One lag per axis, for δ = 0 and every δ > 0 in the order of tuples: the other half is transposed."""
    outputs = geometry.output_shape(spatial)
    axes = [lags(geometry, axis, size, outputs[axis]) for axis, size in enumerate(spatial)]
    still = (0,) * len(spatial)
    return (lag for lag in product(*axes) if tuple(m.delta for m in lag) >= still)
