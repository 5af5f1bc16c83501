"""Power-law tail of a list of numbers: maximum likelihood with the start of the tail chosen by the best fit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from curvlab.shapes import Float

MINIMUM = 10
"""Fewer numbers than this are no tail."""

_SPREAD = 1e-6  # numbers whose logarithms differ by less, on average, are equal: no power law decays that fast
BLOCK = 2**22


@dataclass(frozen=True)
class PowerLaw:
    """p(x) ∝ x^−exponent for x ≥ start, fitted to `count` numbers; `distance` is that of Kolmogorov and Smirnov."""

    exponent: float
    distance: float
    start: float
    count: int


def power_law(values: Float[Tensor, " n"]) -> PowerLaw | None:
    """α = 1 + m/Σ ln(x_i/x_min) over the m numbers x_i ≥ x_min, x_min the value whose tail fits best.

    Clauset, Shalizi & Newman, SIAM Review 51 (2009), eq. 3.1 and section 3.3: every value with at least `MINIMUM`
    numbers above or at it is tried as x_min, and the one with the least Kolmogorov–Smirnov distance
    sup_x |F_empirical(x) − 1 + (x/x_min)^(1−α)| between tail and fit is taken.

    Args:
        values: numbers, in any order; those that are not positive are left out.

    Returns:
        None where there are fewer than `MINIMUM` positive numbers, or where they are all equal.
    """
    return power_laws(values[None])[0]


def power_laws(values: Float[Tensor, "b n"]) -> list[PowerLaw | None]:
    """`power_law` of every row; rows may have different numbers of positive values."""
    logs = values.double().where(values > 0, 0.0).log().sort(1).values  # those left out are −∞ and come first
    n = logs.shape[1]
    starts = torch.arange(max(n - MINIMUM + 1, 0), device=logs.device)
    at = logs[:, : starts.numel()]
    # Equal numbers are one candidate: the first of them, whose tail holds them all.
    valid = at.isfinite() & ((starts == 0) | (at > logs.roll(1, 1)[:, : starts.numel()]))
    counts = n - starts
    spread = logs.flip(1).cumsum(1).flip(1)[:, : starts.numel()] / counts - at
    valid &= spread > _SPREAD
    starts = starts[valid.any(0)]
    if starts.numel() == 0:
        return [None] * len(logs)
    valid, spread, counts = valid[:, starts], spread[:, starts].where(valid[:, starts], 1.0), counts[starts]
    step = max(1, BLOCK // (n * len(logs)))
    blocks = [slice(i, i + step) for i in range(0, starts.numel(), step)]
    distance = torch.cat([_distances(logs, starts[block], 1 / spread[:, block]) for block in blocks], 1)
    least, best = distance.where(valid, torch.inf).min(1)
    chosen = best[:, None]
    columns = (
        (1 + 1 / spread.gather(1, chosen)[:, 0]).tolist(),
        least.tolist(),
        logs.gather(1, starts[chosen])[:, 0].exp().tolist(),
        counts[best].tolist(),
    )
    return [PowerLaw(*row) if exists else None for exists, *row in zip(valid.any(1).tolist(), *columns, strict=True)]


def _distances(logs: Float[Tensor, "b n"], starts: Tensor, decay: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
    """sup |F_empirical − F_fit| of the tail from each start; F_fit = 1 − (x/x_min)^−decay, decay = α − 1.

    Rows whose value at a start is −∞ have NaN there.
    """
    first = int(starts[0])
    tail = logs[:, None, first:]
    order = (torch.arange(first, logs.shape[1], device=logs.device) - starts[:, None]).double()
    fit = -torch.expm1(-decay[:, :, None] * (tail - logs[:, starts, None]))
    counts = (logs.shape[1] - starts)[:, None]
    # The empirical distribution jumps at each number: the fit is compared with the foot and the top of the jump.
    gap = torch.maximum((fit - order / counts).abs(), ((order + 1) / counts - fit).abs())
    return gap.where(order >= 0, 0.0).amax(2)
