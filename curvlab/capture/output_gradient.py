"""OutputGradient: the autograd node after a map, which hands the gradient at its output over and lets it pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class OutputGradient(torch.autograd.Function):
    """y ↦ y in place; on the way back the gradient is shown to `sink` and passed on."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, anchor: Tensor, sink: Callable[[Tensor], None]) -> Tensor:
        """y, in place."""
        ctx.sink = sink
        ctx.mark_dirty(y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, None, None]:
        """g, once `sink` has seen it."""
        ctx.sink(g)
        return (g if ctx.needs_input_grad[0] else None), None, None
