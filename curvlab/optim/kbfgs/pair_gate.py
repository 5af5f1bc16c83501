"""Which pairs (s, y) may update an inverse: sᵀy > 1e-4·sᵀs·‖g‖, all finite; and yᵀHy ≤ sᵀy/μ₁ where Ren 2022 skips."""

from __future__ import annotations

import torch
from torch import Tensor

from curvlab.linalg.bfgs import dot
from curvlab.shapes import Bool, Float

CAUTION = 1e-4
"""Share of ‖g‖ that the curvature sᵀy/sᵀs has to reach (Li & Fukushima 2001's cautious update)."""


def usable(
    s: Float[Tensor, "g d"], y: Float[Tensor, "g d"], g: Float[Tensor, "g d"] | None = None
) -> Bool[Tensor, "g 1"]:
    """Finite, sᵀy > 0 and sᵀy > 1e-4·sᵀs·‖g‖ of every pair.

    Args:
        s: step.
        y: change of the gradient.
        g: the gradient before the step; None = 0.
    """
    sy, ss = dot(s, y), dot(s, s)
    least = 0.0 if g is None else CAUTION * ss * torch.linalg.vector_norm(g, dim=1, keepdim=True)
    return (sy > 0) & (sy > least) & (sy + ss + dot(y, y)).isfinite()


def bounded(
    s: Float[Tensor, "g d"], y: Float[Tensor, "g d"], hy: Float[Tensor, "g d"], mu: float
) -> Bool[Tensor, "g 1"]:
    """yᵀHy/sᵀy ≤ 1/μ: what Alg. 5 asks of a pair with μ = μ₁ (line 17), and Figure 2.1 counts with μ = μ₁/2."""
    return mu * dot(y, hy) <= dot(s, y)
