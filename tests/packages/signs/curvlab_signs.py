"""Optimizers of a package of one's own, as somebody would write them who has read CONTRIBUTING.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from torch import nn

from curvlab.field_types import POSITIVE
from curvlab.fields import Setting
from curvlab.optim import KFAC, register
from curvlab.optim.core import Named, Optimizer


@register("sign-descent", source="Bernstein et al. 2018")
class SignDescent(Optimizer):
    """W ← W − α·s·sign(m), m the heavy ball."""

    def __init__(
        self,
        model: nn.Module,
        lr: float = 0.001,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        size: Annotated[float, Setting("s: the length of every entry's step.", POSITIVE, symbol="s")] = 1.0,
        groups: Iterable[Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(model, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "size": size}, groups)

    def update(self, gradients: Named) -> Named:
        """The step."""
        return self.direction(self.heavy_ball(gradients))

    def direction(self, gradients: Named) -> Named:
        """s·sign(g)."""
        return {
            name: gradients[name].sign() * group["size"]
            for group, names, _ in self.by_group(gradients)
            for name in names
        }


@register("half-kfac")
class HalfKfac(KFAC):
    """K-FAC at half the rate, with all of K-FAC's settings and nothing said of them."""

    def __init__(self, model, likelihood=None, *, lr=0.06, part=0.5, **shared):  # type: ignore[no-untyped-def]
        super().__init__(model, likelihood, lr=lr * part, **shared)
