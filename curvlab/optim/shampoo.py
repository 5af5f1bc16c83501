"""Shampoo: m ×₁ (S₁ + εI)^{−1/(2k)} … ×_k (S_k + εI)^{−1/(2k)} per parameter tensor (Ren 2022, Alg. 16)."""

from __future__ import annotations

from typing import Unpack

from torch import nn

from curvlab.curvatures.shampoo import ShampooCurvature
from curvlab.likelihoods import Likelihood
from curvlab.optim.declared import Epsilon, Params, Rate
from curvlab.optim.preconditioned import Preconditioned
from curvlab.optim.registry import register
from curvlab.optim.shared import LargestMode, Shared


@register("shampoo", source="Ren 2022, Alg. 16")
class Shampoo(Preconditioned):
    """S_i: EMA of mat_i(ḡ) mat_i(ḡ)ᵀ of the batch gradient; also takes `loss.backward(); optimizer.step()`.

    Args:
        model: the network, or parameters as torch.optim takes them.
        likelihood: not used; here so that all constructors are alike.
        shared: see `Shared`.
    """

    takes_complex = takes_parameters = True
    eager = False  # Ren 2022, Alg. 16 has no such line, and a root costs several inverses

    def __init__(
        self,
        model: nn.Module | Params,
        likelihood: str | Likelihood | None = None,
        *,
        lr: Rate = 3e-4,
        damping: Epsilon = 3e-4,
        largest_mode: LargestMode = 8192,
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(model, ShampooCurvature(largest_mode), likelihood, lr, damping, **shared)
