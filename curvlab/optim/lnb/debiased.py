"""x̂ ← x̂ + w(x − x̂), w = (1 − β)/(1 − βᵗ): the debiased EMA x̂ = Σ β^{t−k} x_k / Σ β^{t−k}, t counted from 1."""

from __future__ import annotations


def share_of_new(decay: float, count: int) -> float:
    """w of the `count`-th value, which is the first's 1 and falls to 1 − β.

    By induction: x̂_t Σ_{k<t} β^k = β x̂_{t−1} Σ_{k<t−1} β^k + x_t, and Σ_{k<t} β^k = (1 − βᵗ)/(1 − β).

    Args:
        decay: β, from 0 to below 1.
        count: t ≥ 1, with this value.
    """
    return (1 - decay) / (1 - decay**count)
