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
        largest_mode: a tensor with a longer mode (an embedding's words) has no factors and follows the heavy ball.
        shared: momentum, weight_decay, decay, averaging, statistics_interval, inverse_interval, seed, groups.
    """

    name = "shampoo"
    takes_complex = True
    eager = False  # ren Alg. 16 has no such line, and a root costs several inverses

    def __init__(
        self,
        model: nn.Module,
        likelihood: str | Likelihood | None = None,
        *,
        lr: float = 3e-4,
        damping: float = 3e-4,
        largest_mode: int = 8192,
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(model, ShampooCurvature(largest_mode), likelihood, lr, damping, **shared)
