"""Adam: p = m̂ / (√v̂ + ε) with m̂ = m/(1 − β₁ᵗ), v̂ = v/(1 − β₂ᵗ) (Kingma & Ba 2015, Algorithm 1; ε is ren's damping)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from curvlab.optim.core import Named, Optimizer
from curvlab.optim.hyperparameters import DECAY, POSITIVE, RATE, Bound


class Adam(Optimizer):
    """m ← β₁m + (1−β₁)g, v ← β₂v + (1−β₂)g², p = m̂/(√v̂ + ε); decay is decoupled, as in AdamW.

    Args:
        model: the network.
        lr: α.
        beta1: β₁.
        beta2: β₂.
        damping: ε.
        weight_decay: γ.
        groups: parameter groups with settings of their own.
    """

    name = "adam"
    bounds: ClassVar[Mapping[str, Bound]] = {
        "lr": RATE,
        "beta1": DECAY,
        "beta2": DECAY,
        "damping": POSITIVE,
        "weight_decay": RATE,
    }

    def __init__(
        self,
        model: nn.Module,
        lr: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        damping: float = 1e-8,
        weight_decay: float = 0.0,
        groups: Iterable[Mapping[str, Any]] | None = None,
    ) -> None:
        defaults = {"lr": lr, "beta1": beta1, "beta2": beta2, "damping": damping, "weight_decay": weight_decay}
        super().__init__(model, defaults, groups)

    def update(self, gradients: Named) -> Named:
        """m̂/(√v̂ + ε)."""
        directions = {}
        for group, names, parameters in self.by_group(gradients):
            beta1, beta2 = group["beta1"], group["beta2"]
            for name, p in zip(names, parameters, strict=True):
                g, state = gradients[name], self.state[p]
                if not state:
                    state.update(mean=torch.zeros_like(p), square=torch.zeros_like(p), count=0)
                state["count"] += 1
                mean = state["mean"].lerp_(g, 1 - beta1)
                state["square"].mul_(beta2).addcmul_(g, g, value=1 - beta2)
                directions[name] = self._scaled(mean, state, group) / (1 - beta1 ** state["count"])
        return directions

    def direction(self, gradients: Named) -> Named:
        """g/(√v̂ + ε) with the second moment of the steps so far; g itself before the first."""
        directions = dict(gradients)
        for group, names, parameters in self.by_group(gradients):
            for name, p in zip(names, parameters, strict=True):
                if self.state.get(p):
                    directions[name] = self._scaled(gradients[name], self.state[p], group)
        return directions

    def _scaled(self, x: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        root = state["square"].sqrt().div_((1 - group["beta2"] ** state["count"]) ** 0.5)
        scaled: Tensor = x / root.add_(group["damping"])
        return scaled
