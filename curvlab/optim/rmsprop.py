"""RMSprop: p = m with m ← μm + g/(√v + ε), v ← βv + (1−β)g², v without bias correction but warm-started (Ren 2022,
section 2.8.2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from curvlab.optim.adam import Epsilon
from curvlab.optim.adam_step import as_real
from curvlab.optim.core import Named, Optimizer
from curvlab.optim.declared import Params, Rate, WeightDecay
from curvlab.optim.registry import register
from curvlab.optim.shared import Decay, Momentum


@register("rmsprop", source="Ren 2022, section 2.8.2")
class RMSprop(Optimizer):
    """v ← βv + (1−β)g², m ← μm + g/(√v + ε), p = m; a complex number's parts are two numbers.

    Args:
        model: the network, or parameters as torch.optim takes them.
        groups: parameter groups with settings of their own.
    """

    takes_complex = warms = takes_parameters = True
    swept = "damping"

    def __init__(
        self,
        model: nn.Module | Params,
        lr: Rate = 1e-3,
        decay: Decay = 0.9,
        momentum: Momentum = 0.9,
        damping: Epsilon = 1e-8,
        weight_decay: WeightDecay = 0.0,
        groups: Iterable[Mapping[str, Any]] | None = None,
    ) -> None:
        defaults = {"lr": lr, "decay": decay, "momentum": momentum, "damping": damping, "weight_decay": weight_decay}
        super().__init__(model, defaults, groups)
        self._warmed = 0
        """Batches of warm starts so far."""

    def average(self, gradients: Named, examples: int) -> None:
        """v ← βv + (1−β)g², started by the first g²; in a warm start v is the mean of g² over its batches."""
        if self.warming:
            self._warmed += 1
        for group, names, parameters in self.by_group(gradients):
            for name, p in zip(names, parameters, strict=True):
                g, state = as_real(gradients[name]), self.state[p]
                if "square" not in state:
                    state["square"] = g * g
                elif self.warming:
                    state["square"].lerp_(g * g, 1 / self._warmed)
                else:
                    state["square"].mul_(group["decay"]).addcmul_(g, g, value=1 - group["decay"])

    def update(self, gradients: Named) -> Named:
        """p = m."""
        return self.heavy_ball(self.direction(gradients))

    def direction(self, gradients: Named) -> Named:
        """g/(√v + ε); g itself before the first step."""
        directions = dict(gradients)
        for group, names, parameters in self.by_group(gradients):
            for name, p in zip(names, parameters, strict=True):
                if "square" in self.state.get(p, {}):
                    scaled = as_real(gradients[name]) / self.state[p]["square"].sqrt().add_(group["damping"])
                    directions[name] = torch.view_as_complex(scaled) if p.is_complex() else scaled
        return directions
