"""Gaussian: ℓ = ½‖z − y‖², Hessian I: y ~ N(z, I) (docs/curvature.md; for ‖z − y‖² the noise would have variance
½)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from curvlab.likelihoods.bernoulli import diagonal_columns, fit
from curvlab.likelihoods.likelihood import Likelihood


class Gaussian(Likelihood):
    """Squared error with the ½, summed over the outputs of an example."""

    name = "gaussian"

    def loss(self, z: Tensor, y: Tensor) -> Tensor:
        """½ Σ over outputs, mean over examples."""
        return 0.5 * (z - fit(z, y)).square().sum() / z.shape[0]

    def residual(self, z: Tensor, y: Tensor) -> Tensor:
        """z − y."""
        return z - fit(z, y)

    def sample(self, z: Tensor, uniforms: Tensor) -> Tensor:
        """z + Φ⁻¹(u)."""
        # A uniform of 0 stands for the interval up to the next one: its middle, not minus infinity.
        noise: Tensor = torch.special.ndtri(uniforms.clamp(torch.finfo(uniforms.dtype).eps / 4))
        return z + noise.to(z.dtype)

    def draws(self, z: Tensor) -> tuple[int, ...]:
        """One uniform per output."""
        return tuple(z.shape)

    def hessian_root(self, z: Tensor) -> Iterator[Tensor]:
        """The columns of I."""
        yield from diagonal_columns(torch.ones_like(z))

    def hessian_product(self, z: Tensor, v: Tensor) -> Tensor:
        """v."""
        return v
