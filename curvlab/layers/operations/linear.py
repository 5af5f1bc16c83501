"""F.linear and torch.addmm: s = W x + b."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from curvlab.layers.expression import Expression, inside
from curvlab.layers.form import Form
from curvlab.layers.linear import LinearLayer, TransposedLinearLayer
from curvlab.layers.operations.operation import AffineUse, register, weights

_TRANSPOSES = frozenset({"t", "T", "mT", "transpose", "permute", "swapaxes"})


def linear_layer(weight: Tensor, bias: Tensor | None = None) -> LinearLayer:
    """s = W x + b of a weight (out, in)."""
    return LinearLayer(weight, bias)


def transposed_layer(weight: Tensor, bias: Tensor | None = None) -> TransposedLinearLayer:
    """s = x W + b of a weight (in, out)."""
    return TransposedLinearLayer(weight, bias)


def canonical(use: AffineUse) -> AffineUse:
    """x · Wᵀ of a transposed weight as x times the weight itself."""
    weight = use.weights.get("weight")
    swapped: dict[Any, Any] = {linear_layer: transposed_layer, transposed_layer: linear_layer}
    other = swapped.get(use.make)
    if other is None or weight is None or weight.name not in _TRANSPOSES or weight.value.ndim != 2:
        return use
    (inner,) = inside(weight.arguments)
    same = inner.value.ndim == 2 and inner.value.T.shape == weight.value.shape
    if not same or inner.value.T.stride() != weight.value.stride() or inner.form is Form.AFFINE:
        return use
    return replace(use, make=other, weights={**use.weights, "weight": inner})


@register(F.linear)
def linear(input: Any, weight: Any, bias: Any = None) -> list[AffineUse] | None:
    """x Wᵀ + b."""
    if not isinstance(input, Tensor) or not isinstance(weight, Expression) or weight.value.ndim != 2:
        return None
    return [AffineUse(linear_layer, weights(weight=weight, bias=bias), input, input)]


@register(torch.addmm, Tensor.addmm)
def addmm(input: Any, mat1: Any, mat2: Any, *, beta: float = 1, alpha: float = 1) -> list[AffineUse] | None:
    """b + x W."""
    if not isinstance(mat1, Tensor) or not isinstance(mat2, Expression) or beta != 1 or alpha != 1:
        return None
    if isinstance(input, Expression) and tuple(input.value.shape) != (mat2.value.shape[1],):
        return None
    return [AffineUse(transposed_layer, weights(weight=mat2, bias=input), mat1, mat1)]
