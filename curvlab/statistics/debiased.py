"""x̂ ← x̂ + w(x − x̂), w = (1 − β)/(1 − βᵗ): the debiased EMA x̂ = Σ β^{t−k} x_k / Σ β^{t−k}, t counted from 1."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def share_of_new(decay: float, count: int) -> float:
    """w of the `count`-th value, which is the first's 1 and falls to 1 − β.

    By induction: x̂_t Σ_{k<t} β^k = β x̂_{t−1} Σ_{k<t−1} β^k + x_t, and Σ_{k<t} β^k = (1 − βᵗ)/(1 − β).

    Args:
        decay: β, from 0 to below 1.
        count: t ≥ 1, with this value.
    """
    return (1 - decay) / (1 - decay**count)


def blended(old: Mapping[str, Tensor], new: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """x̂ + w(x − x̂) for each of several statistics, all of them as they were if one is not finite.

    The device is not asked: what it does not say cannot be counted.

    Args:
        old: x̂; empty before the first.
        new: x.
        share: w.
    """
    good = torch.stack([value.sum() for value in new.values()]).isfinite().all()
    found = {}
    for key, value in new.items():
        before = old[key] if key in old else torch.zeros_like(value)
        found[key] = torch.where(good, torch.lerp(before, value, share), before)
    return found
