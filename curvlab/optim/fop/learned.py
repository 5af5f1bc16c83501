"""∂J⁽ᵗ⁾/∂M⁽ᵗ⁻¹⁾ = −ε ∂⟨S∘∇J⁽ᵗ⁾, P(M)∇J⁽ᵗ⁻¹⁾⟩/∂M: learning a preconditioner P(M) from first-order information (FOP,
eq. 3; Almeida et al. 1998; Baydin et al. 2017).

θ⁽ᵗ⁾ = θ⁽ᵗ⁻¹⁾ − ε p(u) with u = P(M)∇J⁽ᵗ⁻¹⁾. S = ∂p/∂u is the slope of the base optimizer, entry by entry: 1 for
gradient descent and for the heavy ball, whose velocity does not depend on the newest M (FOP, section 2.4).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from curvlab.shapes import Float


class Learned(ABC):
    """P(M): a symmetric linear map of a parameter's gradient, with learned numbers M."""

    @abstractmethod
    def start(self, p: Tensor, generator: torch.Generator) -> Tensor:
        """M₀ for a parameter, of its type and on its device; random numbers are drawn from `generator`, on the CPU."""

    @abstractmethod
    def apply(self, m: Tensor, g: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """P(M) g."""

    @abstractmethod
    def pull(self, m: Tensor, now: Float[Tensor, "*shape"], before: Float[Tensor, "*shape"]) -> Tensor:
        """∂⟨now, P(M) before⟩/∂M, shaped like M."""


class LearnedRate(Learned):
    """P(M) = m·I: one rate, relative to the learning rate ε, for all that share it (S-HD: FOP, section 4)."""

    def start(self, p: Tensor, generator: torch.Generator) -> Float[Tensor, ""]:
        """1."""
        return torch.ones((), dtype=p.dtype, device=p.device)

    def apply(self, m: Float[Tensor, ""], g: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """m g."""
        return m * g

    def pull(
        self, m: Float[Tensor, ""], now: Float[Tensor, "*shape"], before: Float[Tensor, "*shape"]
    ) -> Float[Tensor, ""]:
        """⟨now, before⟩."""
        return (now * before).sum()


class LearnedRates(Learned):
    """P(M) = diag(m): a rate, relative to the learning rate ε, for every number of the parameter (PP-HD: FOP, section
    4)."""

    def start(self, p: Tensor, generator: torch.Generator) -> Tensor:
        """1 everywhere."""
        return torch.ones(p.shape, dtype=p.dtype, device=p.device)

    def apply(self, m: Float[Tensor, "*shape"], g: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """m∘g."""
        return m * g

    def pull(
        self, m: Float[Tensor, "*shape"], now: Float[Tensor, "*shape"], before: Float[Tensor, "*shape"]
    ) -> Float[Tensor, "*shape"]:
        """now∘before."""
        return now * before
