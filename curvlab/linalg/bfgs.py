"""The BFGS update of an inverse: H⁺y = s, and as near to H as that allows (Ren 2022, eq. 2.6, 3.11)."""

from __future__ import annotations

from torch import Tensor

from curvlab.linalg.grouped_product import grouped_product
from curvlab.shapes import Float


def bfgs_update(h: Float[Tensor, "g d d"], s: Float[Tensor, "g d"], y: Float[Tensor, "g d"]) -> Float[Tensor, "g d d"]:
    """H⁺ = (I − ρsyᵀ)H(I − ρysᵀ) + ρssᵀ, ρ = 1/sᵀy, of every group (Ren 2022, eq. 2.6, 3.11).

    As H + suᵀ + usᵀ with u = ½(ρyᵀHy + 1)ρs − ρHy: two outer products, symmetric bit for bit where H is.

    Args:
        h: H, symmetric.
        s: step; a pair of zeros changes nothing.
        y: change of the gradient, sᵀy > 0 (`pair_gate`), else H⁺ is not positive definite.
    """
    hy = times(h, y)
    sy = dot(s, y)
    rho = (1 / sy).where(sy != 0, 0.0)
    # Never ρ²: short steps have sᵀy of 1e-20, and float32 ends at 3e38.
    u = 0.5 * (rho * dot(y, hy) + 1) * (rho * s) - rho * hy
    change = s[..., None] * u[:, None]
    return (change + change.mT).add_(h)


def times(m: Float[Tensor, "g o d"], v: Float[Tensor, "g d"]) -> Float[Tensor, "g o"]:
    """M v of every group."""
    return grouped_product(m, v[..., None])[..., 0]


def dot(a: Float[Tensor, "g d"], b: Float[Tensor, "g d"]) -> Float[Tensor, "g 1"]:
    """aᵀb of every group."""
    return (a * b).sum(1, keepdim=True)
