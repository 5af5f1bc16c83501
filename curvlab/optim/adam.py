"""Adam: p = m̂ / (√v̂ + ε) with m̂ = m/(1 − β₁ᵗ), v̂ = v/(1 − β₂ᵗ) (Kingma & Ba 2015, Algorithm 1; ε is ren's damping)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from torch import nn

from curvlab.optim.adam_step import adam, scaled
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
    takes_complex = True
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
        directions: Named = {}
        for group, names, parameters in self.by_group(gradients):
            moved = adam([self.state[p] for p in parameters], [gradients[name] for name in names], group)
            directions.update(zip(names, moved, strict=True))
        return directions

    def direction(self, gradients: Named) -> Named:
        """g/(√v̂ + ε) with the second moment of the steps so far; g itself before the first."""
        directions = dict(gradients)
        for group, names, parameters in self.by_group(gradients):
            known = {name: self.state[p] for name, p in zip(names, parameters, strict=True) if self.state.get(p)}
            if known:
                moved = scaled([gradients[name] for name in known], list(known.values()), group)
                directions.update(zip(known, moved, strict=True))
        return directions
