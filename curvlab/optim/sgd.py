"""SGD with heavy-ball momentum: m ← μm + g, W ← W − α(m + γW) (Ren 2022, sections 2.8.2, 4.7.2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from curvlab.optim.core import Named, Optimizer
from curvlab.optim.declared import Params, Rate, WeightDecay
from curvlab.optim.registry import register
from curvlab.optim.shared import Momentum


@register("sgd", source="Ren 2022, sections 2.8.2, 4.7.2")
class SGD(Optimizer):
    """m ← μm + g, p = m.

    Args:
        model: the network, or parameters as torch.optim takes them.
        groups: parameter groups with settings of their own.
    """

    takes_complex = takes_parameters = True

    def __init__(
        self,
        model: nn.Module | Params,
        lr: Rate = 0.1,
        momentum: Momentum = 0.9,
        weight_decay: WeightDecay = 0.0,
        groups: Iterable[Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(model, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}, groups)

    def update(self, gradients: Named) -> Named:
        """p = m."""
        return self.heavy_ball(gradients)

    def direction(self, gradients: Named) -> Named:
        """p = g."""
        return dict(gradients)
