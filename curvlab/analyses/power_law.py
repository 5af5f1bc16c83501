"""Power-law tail of a list of numbers: maximum likelihood with the start of the tail chosen by the best fit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from curvlab.shapes import Float

MINIMUM = 10
"""Fewer numbers than this are no tail."""

_SPREAD = 1e-6  # numbers whose logarithms differ by less, on average, are equal: no power law decays that fast
_BLOCK = 2**22


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
    logs = values[values > 0].double().log().sort().values
    n = logs.numel()
    starts = torch.arange(max(n - MINIMUM + 1, 0), device=logs.device)
    # Equal numbers are one candidate: the first of them, whose tail holds them all.
    starts = starts[(starts == 0) | (logs[starts] > logs[(starts - 1).clamp(min=0)])]
    counts = n - starts
    spread = logs.flip(0).cumsum(0).flip(0)[starts] / counts - logs[starts]
    starts, counts, spread = (x[spread > _SPREAD] for x in (starts, counts, spread))
    if starts.numel() == 0:
        return None
    step = max(1, _BLOCK // n)
    blocks = [slice(i, i + step) for i in range(0, starts.numel(), step)]
    distance = torch.cat([_distances(logs, starts[block], 1 / spread[block]) for block in blocks])
    best = int(distance.argmin())
    return PowerLaw(
        exponent=1 + 1 / spread[best].item(),
        distance=distance[best].item(),
        start=logs[starts[best]].exp().item(),
        count=int(counts[best]),
    )


def _distances(logs: Float[Tensor, " n"], starts: Tensor, decay: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
    """sup |F_empirical − F_fit| of the tail from each start; F_fit = 1 − (x/x_min)^−decay, decay = α − 1."""
    first = int(starts[0])
    tail = logs[first:]
    order = (torch.arange(first, logs.numel(), device=logs.device) - starts[:, None]).double()
    fit = -torch.expm1(-decay[:, None] * (tail - logs[starts][:, None]))
    counts = (logs.numel() - starts)[:, None]
    # The empirical distribution jumps at each number: the fit is compared with the foot and the top of the jump.
    gap = torch.maximum((fit - order / counts).abs(), ((order + 1) / counts - fit).abs())
    return gap.where(order >= 0, 0.0).amax(1)
