"""Products and sums with a parameter, and PReLU: s_c = γ_c x_c, s = x + b."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from curvlab.layers.bare import Bare, broadcast_over_examples
from curvlab.layers.elementwise import PReLULayer
from curvlab.layers.expression import Expression
from curvlab.layers.operations.operation import AffineUse, register


def _bare(kind: str, weight: Expression, factor: Tensor, other: Tensor) -> list[AffineUse] | None:
    shape = torch.broadcast_shapes(weight.value.shape, other.shape)  # type: ignore[no-untyped-call]
    x = torch.broadcast_to(factor, shape)
    if not broadcast_over_examples(weight.value, x):
        return None

    def make(weight: Tensor) -> Bare:
        return Bare(f"Parameter ({kind})", weight)

    return [AffineUse(make, {"weight": weight}, x, other, key=kind)]


def _pair(input: Any, other: Any) -> tuple[Expression, Tensor] | None:
    if isinstance(input, Expression) and isinstance(other, Tensor):
        return input, other
    if isinstance(other, Expression) and isinstance(input, Tensor):
        return other, input
    return None


@register(torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__, Tensor.__iadd__, Tensor.add_)
def add(input: Any, other: Any) -> list[AffineUse] | None:
    """x + b."""
    found = _pair(input, other)
    return None if found is None else _bare("bias", found[0], found[0].value.new_ones(()), found[1])


@register(torch.sub, Tensor.sub, Tensor.__sub__, torch.subtract)
def subtract(input: Any, other: Any) -> list[AffineUse] | None:
    """b − x, or x − b."""
    found, sign = _pair(input, other), 1 if isinstance(input, Expression) else -1
    return None if found is None else _bare("bias", found[0], sign * found[0].value.new_ones(()), found[1])


@register(torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__, torch.multiply)
def multiply(input: Any, other: Any) -> list[AffineUse] | None:
    """γ x."""
    found = _pair(input, other)
    if found is None or not found[1].is_floating_point():
        return None
    return _bare("scale", found[0], found[1].detach(), found[1])


@register(Tensor.__imul__, Tensor.mul_)
def multiply_in_place(input: Any, other: Any) -> list[AffineUse] | None:
    """γ x in place of x, which is kept for what is made of it."""
    if not isinstance(input, Tensor) or not isinstance(other, Expression) or not input.is_floating_point():
        return None
    return _bare("scale", other, input.detach().clone(), input)


@register(F.prelu, torch.prelu)
def prelu(input: Any, weight: Any) -> list[AffineUse] | None:
    """max(x, 0) + γ min(x, 0)."""
    if not isinstance(input, Tensor) or not isinstance(weight, Expression):
        return None
    return [AffineUse(PReLULayer, {"weight": weight}, input.detach().clamp(max=0), input, key="prelu")]
