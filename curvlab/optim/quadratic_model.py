"""(α, μ) = argmin M(αp + μδ₀), M(δ) = ½ δᵀ(G + λI)δ + ∇hᵀδ: the step size and momentum of Grosse 2021, eq. 26 and 27.

A 2×2 system of inner products. δᵀGδ comes from one forward-mode product per direction and the likelihood's Hessian:
vᵀGw = 1/N Σ_n (J_n v)ᵀ H_n (J_n w). With decoupled decay γ, h + γ/2 ‖W‖² is meant: λ + γ in the place of λ, ∇h + γW in
that of ∇h. Nothing is read from the device. (The scan of eq. 26 lacks a ½ in the line above it; its minimum is right.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from curvlab.likelihoods import Likelihood
from curvlab.shapes import Float

Vector = Mapping[str, Tensor]
"""A direction in the space of the parameters, by parameter name; names left out are zero."""


@dataclass(frozen=True, eq=False)
class Quadratic:
    """M(c) − M(0) = ½ cᵀBc + bᵀc on the span of p and δ₀, c = (α, μ).

    Attributes:
        curvature: B, the products vᵀ(G + λI)w of p and δ₀, symmetric.
        slope: b = (∇hᵀp, ∇hᵀδ₀).
    """

    curvature: Float[Tensor, "2 2"]
    slope: Float[Tensor, " 2"]

    def change(self, coefficients: Float[Tensor, " 2"]) -> Float[Tensor, ""]:
        """M(αp + μδ₀) − M(0), in units of the loss."""
        return coefficients @ (0.5 * (self.curvature @ coefficients) + self.slope)

    def minimiser(self) -> Float[Tensor, " 2"]:
        """(α, μ) = −B⁻¹b; on p alone α = −∇hᵀp / pᵀ(G + λI)p (eq. 26).

        α is negative for a p that points uphill. A direction without positive, finite curvature (a δ₀ of zero) is
        left out, and so is δ₀ where it is parallel to p to half the digits of the dtype: the coefficients would be
        rounding.
        """
        curvature = self.curvature.diagonal()
        usable = (curvature > 0) & curvature.isfinite()
        length = curvature.where(usable, 1.0).sqrt()
        # In units of each direction's own length, so that no scale can overflow or hide the other.
        cosine = self.curvature[0, 1] / length[0] / length[1]
        independent = usable.all() & (1 - cosine.square() > torch.finfo(cosine.dtype).eps ** 0.5)
        cosine = cosine.where(independent, 0.0)
        second = usable[1] & (independent | ~usable[0])
        slope = (self.slope / length).where(torch.stack([usable[0], second]), 0.0)
        return (cosine * slope.flip(0) - slope) / (1 - cosine.square()) / length


def quadratic(
    gradient: Vector,
    directions: tuple[Vector, Vector],
    curvature: Float[Tensor, "2 2"],
    damping: Mapping[str, float | Tensor],
) -> Quadratic:
    """B = curvature + Σ λ(vᵀw), b = ∇hᵀv for v, w of the two directions, summed over parameters.

    Args:
        gradient: ∇h.
        directions: p and δ₀; names without a gradient count in B alone.
        curvature: vᵀGw, see `gauss_newton_products`.
        damping: λ of every parameter in the directions: groups may differ.
    """
    p, previous = directions
    pp, pq, qq = (_dot(v, w, curvature, damping) for v, w in ((p, p), (p, previous), (previous, previous)))
    slope = torch.stack([_dot(gradient, v, curvature) for v in directions])
    return Quadratic(curvature + torch.stack([pp, pq, pq, qq]).reshape(2, 2), slope)


def gauss_newton_products(
    likelihood: Likelihood, z: Float[Tensor, "n ..."], tangents: Sequence[Tensor]
) -> Float[Tensor, "k k"]:
    """vᵀGw = 1/N Σ_n (J_n v)ᵀ H_n (J_n w) for every pair of k directions.

    Args:
        likelihood: whose Hessian H_n of ℓ_n at the output; with the class axis of these outputs.
        z: the model's output.
        tangents: Jv of each direction, in the shape of z (`curvlab.capture.jacobian`).
    """
    # Sums over all examples of half-precision outputs would lose most of their digits.
    wide = torch.promote_types(z.dtype, torch.float32)
    z, tangents = z.to(wide), [tangent.to(wide) for tangent in tangents]
    curved = torch.stack([likelihood.hessian_product(z, tangent).flatten() for tangent in tangents])
    return torch.stack([t.flatten() for t in tangents]) @ curved.mT / z.shape[0]


def _dot(v: Vector, w: Vector, like: Tensor, weights: Mapping[str, float | Tensor] | None = None) -> Tensor:
    """Σ weights vᵀw over the names of both."""
    products = [
        (part * w[name]).sum().to(like.dtype) * (1.0 if weights is None else weights[name])
        for name, part in v.items()
        if name in w
    ]
    return torch.stack(products).sum() if products else like.new_zeros(())
