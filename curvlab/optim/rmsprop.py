"""RMSprop: p = m with m ← μm + g/(√v + ε), v ← αv + (1−α)g², v without bias correction but warm-started (Ren 2022,
section 2.8.2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import torch
from torch import nn

from curvlab.field_types import DECAY
from curvlab.fields import Setting
from curvlab.optim.adam import Eps
from curvlab.optim.adam_step import as_real
from curvlab.optim.core import Named, Optimizer
from curvlab.optim.declared import Params, Rate, WeightDecay
from curvlab.optim.registry import register
from curvlab.optim.shared import Momentum


@register("rmsprop", source="Ren 2022, section 2.8.2")
class RMSprop(Optimizer):
    """v ← αv + (1−α)g², m ← μm + g/(√v + ε), p = m; a complex number's parts are two numbers.

    Args:
        model: the network, or parameters as torch.optim takes them.
        groups: parameter groups with settings of their own.
    """

    takes_complex = warms = takes_parameters = True
    swept = "eps"

    def __init__(
        self,
        model: nn.Module | Params,
        lr: Rate = 1e-3,
        alpha: Annotated[
            float, Setting("α of the average v of squares: v ← αv + (1 − α)g².", DECAY, formerly=("decay",))
        ] = 0.9,
        eps: Eps = 1e-8,
        weight_decay: WeightDecay = 0.0,
        momentum: Momentum = 0.9,
        groups: Iterable[Mapping[str, Any]] | None = None,
    ) -> None:
        defaults = {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__(model, defaults, groups)
        self._warmed = 0
        """Batches of warm starts so far."""

    def average(self, gradients: Named, examples: int) -> None:
        """v ← αv + (1−α)g², started by the first g²; in a warm start v is the mean of g² over its batches."""
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
                    state["square"].mul_(group["alpha"]).addcmul_(g, g, value=1 - group["alpha"])

    def update(self, gradients: Named) -> Named:
        """p = m."""
        return self.heavy_ball(self.direction(gradients))

    def direction(self, gradients: Named) -> Named:
        """g/(√v + ε); g itself before the first step."""
        directions = dict(gradients)
        for group, names, parameters in self.by_group(gradients):
            for name, p in zip(names, parameters, strict=True):
                if "square" in self.state.get(p, {}):
                    scaled = as_real(gradients[name]) / self.state[p]["square"].sqrt().add_(group["eps"])
                    directions[name] = torch.view_as_complex(scaled) if p.is_complex() else scaled
        return directions
