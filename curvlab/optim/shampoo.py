"""Shampoo: m ×₁ (S₁ + εI)^{−1/(2k)} … ×_k (S_k + εI)^{−1/(2k)} per parameter tensor (ren Alg. 16)."""

from __future__ import annotations

from typing import Unpack

from torch import nn

from curvlab.curvatures.shampoo import ShampooCurvature
from curvlab.likelihoods import Likelihood
from curvlab.optim.preconditioned import Preconditioned
from curvlab.optim.shared import Shared


class Shampoo(Preconditioned):
    """S_i: EMA of mat_i(ḡ) mat_i(ḡ)ᵀ of the batch gradient; also takes `loss.backward(); optimizer.step()`.

    Args:
        model: the network.
        likelihood: not used; here so that all constructors are alike.
        lr: α.
        damping: ε, added to every factor.
        shared: momentum, weight_decay, decay, averaging, statistics_interval, inverse_interval, seed, groups.
    """

    name = "shampoo"

    def __init__(
        self,
        model: nn.Module,
        likelihood: str | Likelihood | None = None,
        *,
        lr: float = 0.03,
        damping: float = 1e-4,
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(model, ShampooCurvature(), likelihood, lr, damping, **shared)
