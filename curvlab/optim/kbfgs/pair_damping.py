"""Damping of pairs (s, y): keeps H positive definite and bounded where the Hessian is not (Ren 2022, sections 2.3,
3.3).

Everything is done for g independent pairs at once, and nothing is read from the device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from torch import Tensor

from curvlab.linalg.bfgs import dot
from curvlab.shapes import Float

PairDamping = Literal["double", "powell-lm", "powell-identity-lm"]
"""DD (Alg. 3), D_P D_LM (Alg. 8), D_P(I) D_LM (Alg. 11)."""


class Pair(NamedTuple):
    """A pair (s, y), and of every group the share of itself that damping has left s: θ₁, 1 where it changed nothing."""

    s: Float[Tensor, "g d"]
    y: Float[Tensor, "g d"]
    theta: Float[Tensor, "g 1"]


def powell(
    s: Float[Tensor, "g d"], y: Float[Tensor, "g d"], hy: Float[Tensor, "g d"], mu: float
) -> tuple[Float[Tensor, "g d"], Float[Tensor, "g 1"]]:
    """s̃ = θs + (1 − θ)Hy with the largest θ ≤ 1 for which s̃ᵀy ≥ μ yᵀHy (Powell's damping on H; Ren 2022, section
    2.3.1).

    With (y, s, s) in place of (s, y, Hy) it is Powell's damping with B = I: ỹᵀs ≥ μ sᵀs.

    Returns:
        s̃ and θ.
    """
    sy, yhy = dot(s, y), dot(y, hy)
    theta = ((1 - mu) * yhy / (yhy - sy)).where(sy < mu * yhy, 1.0)
    return theta * s + (1 - theta) * hy, theta


def double_damping(
    s: Float[Tensor, "g d"], y: Float[Tensor, "g d"], hy: Float[Tensor, "g d"], mu1: float, mu2: float
) -> Pair:
    """DD: Powell on H with μ₁, then Powell with B = I and μ₂ ≤ 1: s̃ᵀỹ ≥ μ₂ s̃ᵀs̃ (Ren 2022, Alg. 3)."""
    s, theta = powell(s, y, hy, mu1)
    y, _ = powell(y, s, s, mu2)
    return Pair(s, y, theta)


def powell_lm(
    s: Float[Tensor, "g d"], y: Float[Tensor, "g d"], hy: Float[Tensor, "g d"], mu1: float, mu2: float
) -> Pair:
    """D_P D_LM: Powell on H with μ₁, then ỹ = y + μ₂s̃, any μ₂ > 0: s̃ᵀỹ ≥ μ₁ yᵀHy + μ₂ s̃ᵀs̃ (Ren 2022, Alg. 8)."""
    s, theta = powell(s, y, hy, mu1)
    return Pair(s, y + mu2 * s, theta)


def powell_identity_lm(
    s: Float[Tensor, "g d"], y: Float[Tensor, "g d"], hy: Float[Tensor, "g d"], mu1: float, mu2: float
) -> Pair:
    """D_P(I) D_LM: as `powell_lm` with I/μ₂ in place of H: ỹᵀỹ ≤ μ₂(1/μ₁ + 2) s̃ᵀỹ too (Ren 2022, Alg. 11, Lemma 4).

    `hy` plays no part; it is there so that all dampings are called alike.
    """
    return powell_lm(s, y, y / mu2, mu1, mu2)


DAMPINGS: dict[PairDamping, Callable[[Tensor, Tensor, Tensor, float, float], Pair]] = {
    "double": double_damping,
    "powell-lm": powell_lm,
    "powell-identity-lm": powell_identity_lm,
}
"""By name, called with (s, y, Hy, μ₁, μ₂)."""
