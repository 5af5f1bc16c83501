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

    def update(self, gradients: Named, finite: Tensor) -> Named:
        """m̂/(√v̂ + ε)."""
        directions = {}
        for p, group in self._with_groups():
            name = self.names[id(p)]
            if name not in gradients:
                continue
            g, state = gradients[name], self.state[p]
            if not state:
                state.update(
                    mean=torch.zeros_like(p), square=torch.zeros_like(p), count=torch.zeros((), device=p.device)
                )
            state["count"] += finite
            for key, value, beta in (("mean", g, group["beta1"]), ("square", g * g, group["beta2"])):
                state[key].copy_(torch.where(finite, torch.lerp(value, state[key], beta), state[key]))
            directions[name] = self._step(state["mean"], state, group)
        return directions

    def direction(self, gradients: Named) -> Named:
        """g/(√v̂ + ε) with the second moment of the steps so far; g itself before the first."""
        return {
            name: self._scaled(g, self.state[p], group) if self.state.get(p) else g
            for p, group in self._with_groups()
            if (name := self.names[id(p)]) in gradients and (g := gradients[name]) is not None
        }

    def _step(self, mean: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> Tensor:
        return self._scaled(mean / (1 - group["beta1"] ** state["count"]), state, group)

    def _scaled(self, x: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> Tensor:
        square = state["square"] / (1 - group["beta2"] ** state["count"])
        scaled: Tensor = x / (square.sqrt() + group["damping"])
        return scaled
