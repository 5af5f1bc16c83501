"""The affine part of F.layer_norm, rms_norm, group_norm, batch_norm and instance_norm: s = γ x̂ + β."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from curvlab.layers.elementwise import Elementwise
from curvlab.layers.operations.operation import AffineUse, register, weights


def _use(
    kind: str, axis: int, input: Any, normalise: Callable[[Tensor], Tensor], weight: Any, bias: Any
) -> list[AffineUse] | None:
    found = weights(weight=weight, bias=bias)
    if not isinstance(input, Tensor) or not found:
        return None

    def make(weight: Tensor | None = None, bias: Tensor | None = None) -> Elementwise:
        return Elementwise(kind, weight, bias, axis)

    with torch.no_grad():
        normalised = normalise(input)
    return [AffineUse(make, found, normalised, input, key=(kind, axis))]


@register(F.layer_norm)
def layer_norm(
    input: Any, normalized_shape: Sequence[int], weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> list[AffineUse] | None:
    """Over the last axes."""
    shape = list(normalized_shape)
    return _use("LayerNorm", -len(shape), input, lambda x: F.layer_norm(x, shape, None, None, eps), weight, bias)


@register(F.rms_norm)
def rms_norm(
    input: Any, normalized_shape: Sequence[int], weight: Any = None, eps: float | None = None
) -> list[AffineUse] | None:
    """Over the last axes, without a mean."""
    shape = list(normalized_shape)
    return _use("RMSNorm", -len(shape), input, lambda x: F.rms_norm(x, shape, None, eps), weight, None)


@register(F.group_norm)
def group_norm(
    input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> list[AffineUse] | None:
    """Over groups of channels."""
    return _use("GroupNorm", 1, input, lambda x: F.group_norm(x, num_groups, None, None, eps), weight, bias)


@register(F.batch_norm)
def batch_norm(
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> list[AffineUse] | None:
    """Over the batch, or by the running statistics."""

    def normalise(x: Tensor) -> Tensor:
        if training:
            return F.batch_norm(x, None, None, training=True, eps=eps)
        return F.batch_norm(x, running_mean, running_var, training=False, eps=eps)

    return _use("BatchNorm", 1, input, normalise, weight, bias)


@register(F.instance_norm)
def instance_norm(
    input: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> list[AffineUse] | None:
    """Over the positions of every channel."""
    if not use_input_stats:
        return None
    return _use("InstanceNorm", 1, input, lambda x: F.instance_norm(x, eps=eps), weight, bias)
