"""SGD with heavy-ball momentum: m ← μm + g, W ← W − α(m + γW) (ren 2.8.2, 4.7.2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from curvlab.optim.core import Named, Optimizer


class SGD(Optimizer):
    """m ← μm + g, p = m.

    Args:
        model: the network.
        lr: α.
        momentum: μ.
        weight_decay: γ, decoupled.
        groups: parameter groups with settings of their own.
    """

    name = "sgd"
    takes_complex = True

    def __init__(
        self,
        model: nn.Module,
        lr: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        groups: Iterable[Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(model, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}, groups)

    def update(self, gradients: Named) -> Named:
        """p = m."""
        return self.heavy_ball(gradients)

    def direction(self, gradients: Named) -> Named:
        """p = g."""
        return dict(gradients)
