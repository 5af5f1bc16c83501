"""Adam: p = m̂ / (√v̂ + ε) with m̂ = m/(1 − β₁ᵗ), v̂ = v/(1 − β₂ᵗ) (Kingma & Ba 2015, Algorithm 1; ε is the damping of
Ren 2022)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from torch import nn

from curvlab.field_types import DECAY, POSITIVE
from curvlab.fields import Setting
from curvlab.optim.adam_step import adam, scaled
from curvlab.optim.core import Named, Optimizer
from curvlab.optim.declared import Params, Rate, WeightDecay
from curvlab.optim.registry import register

Betas = Annotated[
    tuple[float, float],
    Setting(
        "β₁ of the gradient's average and β₂ of the average of its square.",
        DECAY,
        default=(0.9, 0.999),
        formerly=("beta1", "beta2"),
    ),
]
Eps = Annotated[
    float,
    Setting(
        "ε, added to the root of the average of squares.", POSITIVE, default=1e-8, symbol="ε", formerly=("damping",)
    ),
]


@register("adam", source="Kingma & Ba 2015, Algorithm 1")
class Adam(Optimizer):
    """m ← β₁m + (1−β₁)g, v ← β₂v + (1−β₂)g², p = m̂/(√v̂ + ε); decay is decoupled, as in AdamW.

    Args:
        model: the network, or parameters as torch.optim takes them.
        groups: parameter groups with settings of their own.
    """

    takes_complex = averages_in_order = takes_parameters = True
    swept = "eps"

    def __init__(
        self,
        model: nn.Module | Params,
        lr: Rate = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: Eps = 1e-8,
        weight_decay: WeightDecay = 0.0,
        groups: Iterable[Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(model, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}, groups)

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
