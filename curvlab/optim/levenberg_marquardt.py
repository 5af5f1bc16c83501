"""ρ = (h(θ+δ) − h(θ)) / (M(δ) − M(0));  λ ← grow·λ if ρ < ¼,  λ ← shrink·λ if ρ > ¾ (Grosse 2021, section 4.1, eq. 14;
Ren 2022, eq. 5.5, whose scan has a plus for the minus)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from curvlab.shapes import Bool, Float


def reduction_ratio(
    before: Float[Tensor, ""], after: Float[Tensor, ""], predicted: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """ρ = (h(θ+δ) − h(θ)) / (M(δ) − M(0)): 1 where the quadratic model is right, below it where it was too hopeful.

    Where both changes are lost in the rounding of h they agree, ρ = 1. A model that promises no decrease is no model
    to follow: ρ = 0 there.

    Args:
        before: h(θ), without damping terms.
        after: h(θ+δ) on the same batch, with the same dropout.
        predicted: M(δ) − M(0), damping terms included (`Quadratic.change`).

    Returns:
        ρ; NaN where an argument is not finite.
    """
    actual = after - before
    ratio = actual / predicted.where(predicted < 0, 1.0)
    ratio = ratio.where(predicted < 0, 0.0)
    rounding = torch.finfo(before.dtype).eps * torch.maximum(before.abs(), after.abs())
    ratio = ratio.where((actual.abs() > rounding) | (predicted.abs() > rounding), 1.0)
    return ratio.where(actual.isfinite() & predicted.isfinite(), torch.nan)


@dataclass(frozen=True)
class LevenbergMarquardt:
    """The rule on λ, on tensors alone: nothing is read from the device.

    Attributes:
        shrink: factor below 1 where ρ > `high`.
        grow: factor above 1 where ρ < `low`, or is not finite.
        low, high: ¼ and ¾.
        least, most: λ does not shrink below `least` nor grow above `most`; at a plateau it would do so without end.

    Raises:
        ValueError: the factors or the thresholds are not in order.
    """

    shrink: float
    grow: float
    low: float = 0.25
    high: float = 0.75
    least: float = 1e-10
    most: float = 1e10

    def __post_init__(self) -> None:
        if not (0 < self.shrink < 1 < self.grow < float("inf")):
            raise ValueError(f"damping shrinks by a factor below 1 and grows by one above, not {self}")
        if not (self.low < self.high and 0 < self.least < self.most):
            raise ValueError(f"thresholds and bounds of damping must be in order, not {self}")

    @classmethod
    def kfac(cls, interval: int) -> LevenbergMarquardt:
        """ω₁ = (19/20)^T, its inverse to grow, for a rule applied every T steps (Martens and Grosse 2015, 6.5)."""
        if interval < 1:
            raise ValueError(f"damping is adapted every {interval} steps, which is not at least 1")
        return cls((19 / 20) ** interval, (20 / 19) ** interval)

    def update(self, damping: Float[Tensor, ""], ratio: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """λ after a step of reduction ratio ρ."""
        grown = torch.maximum(damping, (damping * self.grow).clamp(max=self.most))
        shrunk = torch.minimum(damping, (damping * self.shrink).clamp(min=self.least))
        kept = torch.where(ratio > self.high, shrunk, damping)
        return torch.where((ratio < self.low) | ~ratio.isfinite(), grown, kept)

    def accepts(self, ratio: Float[Tensor, ""]) -> Bool[Tensor, ""]:
        """Whether the step may stand: a loss that is no number takes it back."""
        return ratio.isfinite()


HESSIAN_FREE = LevenbergMarquardt(2 / 3, 3 / 2)
"""The factors of (Grosse 2021, section 4.1)."""
SUBSAMPLED = LevenbergMarquardt(0.99, 1.01)
"""drop and boost of the SMW methods (Ren 2022, section 5.2.3 and Alg. 17–23); λ there is this one plus their τ."""
