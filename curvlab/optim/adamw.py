"""AdamW: W ← (1 − αγ)W − α m̂/(√v̂ + ε), Adam with decay apart from the gradient (Loshchilov & Hutter 2019,
Algorithm 2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from curvlab.optim.adam import Adam, Betas, Eps
from curvlab.optim.declared import Params, Rate, WeightDecay
from curvlab.optim.registry import register


@register("adamw", source="Loshchilov & Hutter 2019, Algorithm 2")
class AdamW(Adam):
    """Adam with decoupled decay, γ = 0.01 where nothing else is said: torch.optim.AdamW.

    Args:
        model: the network, or parameters as torch.optim takes them.
        groups: parameter groups with settings of their own.
    """

    def __init__(
        self,
        model: nn.Module | Params,
        lr: Rate = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: Eps = 1e-8,
        weight_decay: WeightDecay = 1e-2,
        groups: Iterable[Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(model, lr, betas, eps, weight_decay, groups)
