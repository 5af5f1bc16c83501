"""Features that carry nothing: energy spent on the mean, constant features, copies of other features."""

from __future__ import annotations

from collections.abc import Iterator
from functools import singledispatch

import torch
from torch import Tensor

from curvlab.linalg.float64 import CHUNK, double, pieces
from curvlab.operators.diagonal import diagonal
from curvlab.operators.operator import Dense, Diagonal, Grouped, LowRank, Operator
from curvlab.operators.sketch import Sketch
from curvlab.operators.trace import trace
from curvlab.shapes import Bool, Float

CONSTANT = 1e-12
"""A variance of at most this share of the second moment is constant: a float32 network computes features no better."""

_ROUNDINGS = 64  # float32 sums of equal products drift by tens of roundings, all one way

COPY = 1e-6
"""A correlation within this of ±1 is a copy: a difference of about a thousandth of a standard deviation."""

_DIRECTIONS = 64


def mean_energy(second: Operator, mean: Float[Tensor, "*g d"]) -> float | None:
    """‖μ‖²/E‖a‖², the share of the features' energy that a constant carries, in [0, 1]; None when there is no energy.

    Args:
        second: E[aaᵀ] of the features a, without the 1 of a bias.
        mean: μ, of one or of every group.
    """
    energy = trace(second)
    return min(double(mean).square().sum().item() / energy, 1.0) if energy > 0 else None


def constant_features(second: Operator, mean: Float[Tensor, "*g d"], resolution: float = 0.0) -> Bool[Tensor, " gd"]:
    """E[a_j²] − μ_j² ≤ `constant_share`·E[a_j²]: the features without variance ("dead"), in the operator's order.

    Args:
        second: E[aaᵀ] of the features a, without the 1 of a bias.
        mean: μ, of one or of every group.
        resolution: relative rounding of the products in `second`: eps of float32 if summed in it, 0 for float64.
    """
    energy = diagonal(second)
    return energy - double(mean).flatten().square() <= constant_share(resolution) * energy


def constant_share(resolution: float) -> float:
    """The share of E[a_j²] up to which a variance is rounding."""
    return max(CONSTANT, _ROUNDINGS * resolution)


@singledispatch
def duplicated_features(second: Operator, mean: Float[Tensor, "*g d"], resolution: float = 0.0) -> int:
    """#{j: |ρ_ij| ≥ 1 − `COPY` for some i < j}: features that are an affine copy of an earlier one of their group.

    Constant features are not counted: they are dead. Memory stays near that of `second`. Arguments as in
    `constant_features`.

    Raises:
        TypeError: no rule for this type of operator.
    """
    raise TypeError(f"duplicated_features: no rule is registered for {type(second).__name__}")


@duplicated_features.register
def _(second: Dense, mean: Float[Tensor, "*g d"], resolution: float = 0.0) -> int:
    return duplicated_features(Grouped(second.matrix[None]), mean, resolution)


@duplicated_features.register
def _(second: Grouped, mean: Float[Tensor, "*g d"], resolution: float = 0.0) -> int:
    groups, size, _ = second.stack.shape
    mu = double(mean).reshape(groups, size)
    inverse = _inverse_deviation(second, mean, resolution).reshape(groups, size)
    found = 0
    for rows in _blocks(size, groups):
        moment = double(second.stack[:, rows, : rows.stop])
        covariance = moment - mu[:, rows, None] * mu[:, None, : rows.stop]
        found += _copies(covariance * inverse[:, rows, None] * inverse[:, None, : rows.stop], rows)
    return found


@duplicated_features.register
def _(second: LowRank, mean: Float[Tensor, "*g d"], resolution: float = 0.0) -> int:
    if isinstance(second, Sketch):  # directions, not features that were seen: single columns cannot be compared
        return 0
    # All correlations from all rows can cost far more than the spectrum. 64 random combinations of the rows keep an
    # exact copy exact, and 1 − |ρ| within about a factor of two (Johnson & Lindenstrauss).
    count, size = second.rows.shape
    mix = torch.eye(count, dtype=torch.float64)
    if count > _DIRECTIONS:
        mix = torch.randn(count, _DIRECTIONS, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mu = double(mean).flatten()
    mix = mix.to(mu.device)
    mixed = torch.cat([columns[0] @ mix for _, columns in pieces(second.rows.T[None])]) - mu[:, None] * mix.sum(0)
    inverse = torch.where(constant_features(second, mean, resolution), 0.0, 1 / mixed.norm(dim=1))
    mixed *= inverse[:, None]
    return sum(_copies((mixed[rows] @ mixed[: rows.stop].T)[None], rows) for rows in _blocks(size, 1))


@duplicated_features.register
def _(second: Diagonal, mean: Float[Tensor, "*g d"], resolution: float = 0.0) -> int:
    # ρ_ij = −t_i t_j with t = μ/σ: j is a copy if it is one of the earlier feature with the largest |t|.
    t = (double(mean).flatten() * _inverse_deviation(second, mean, resolution)).abs()
    before = torch.cat([t.new_zeros(1), t.cummax(0).values[:-1]])
    return int((t * before >= 1 - COPY).sum())


def _inverse_deviation(second: Operator, mean: Float[Tensor, "*g d"], resolution: float) -> Float[Tensor, " gd"]:
    """1/σ_j, and 0 for constant features, so that they correlate with nothing."""
    variance = diagonal(second) - double(mean).flatten().square()
    return torch.where(constant_features(second, mean, resolution), 0.0, variance.rsqrt())


def _blocks(size: int, groups: int) -> Iterator[slice]:
    """Slices of the rows of `groups` square matrices that keep a block of correlations near `CHUNK` numbers."""
    step = max(1, CHUNK // max(1, groups * size))
    return (slice(start, min(start + step, size)) for start in range(0, size, step))


def _copies(correlation: Float[Tensor, "g b c"], rows: slice) -> int:
    """How many features of the slice `rows` match an earlier one; columns are the features up to the last of `rows`."""
    return int((correlation.abs() >= 1 - COPY).tril(rows.start - 1).any(2).sum())
