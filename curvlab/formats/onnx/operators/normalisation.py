"""Normalisations: minus a mean, over a deviation, times a scale, plus a bias."""

from __future__ import annotations

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from curvlab.formats.onnx.operators.table import Result, UnsupportedOperator, axis_of, operator


def per_channel(parameter: Tensor, x: Tensor) -> Tensor:
    """A parameter with one entry per channel (axis 1), broadcast over the rest."""
    return parameter.reshape(-1, *(1,) * (x.ndim - 2))


@operator("BatchNormalization")
def batch_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
    is_test: int = 1,
    spatial: int = 1,
    outputs: int = 1,
) -> Result:
    """(x − mean) / √(variance + epsilon) · scale + bias with the stored statistics."""
    if training_mode or outputs > 1:
        raise UnsupportedOperator("operator BatchNormalization in training mode", "its statistics would change")
    if not spatial:
        raise UnsupportedOperator("operator BatchNormalization for every pixel", "not supported")
    y = F.batch_norm(x, mean.to(x.dtype), variance.to(x.dtype), scale.to(x.dtype), bias.to(x.dtype), False, 0, epsilon)
    return (y,)


@operator("InstanceNormalization")
def instance_normalization(x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5) -> Tensor:
    """Statistics of each example and channel."""
    return F.group_norm(x, x.shape[1], scale, bias, epsilon)


@operator("GroupNormalization", since=21)
def group_normalization(x: Tensor, scale: Tensor, bias: Tensor, *, num_groups: int, epsilon: float = 1e-5) -> Tensor:
    """Statistics of each example and group of channels."""
    return F.group_norm(x, num_groups, scale, bias, epsilon)


@operator("GroupNormalization", before=21)
def group_normalization_by_group(
    x: Tensor, scale: Tensor, bias: Tensor, *, num_groups: int, epsilon: float = 1e-5
) -> Tensor:
    """One scale and bias per group."""
    channels = x.shape[1] // num_groups
    return F.group_norm(x, num_groups, scale.repeat_interleave(channels), bias.repeat_interleave(channels), epsilon)


@operator("LayerNormalization")
def layer_normalization(
    x: Tensor, scale: Tensor, bias: Tensor | None = None, *, axis: int = -1, epsilon: float = 1e-5, outputs: int = 1
) -> Result:
    """Statistics of each example over all axes from this one on."""
    axes = list(range(axis_of(axis, x.ndim), x.ndim))
    mean = x.mean(axes, keepdim=True)
    centred = x - mean
    inverse = torch.rsqrt(centred.square().mean(axes, keepdim=True) + epsilon)
    y = torch.mul(centred * inverse, scale)
    return (y if bias is None else torch.add(y, bias), mean, inverse)[:outputs]


@operator("RMSNormalization")
def rms_normalization(x: Tensor, scale: Tensor, *, axis: int = -1, epsilon: float = 1e-5) -> Tensor:
    """x / √(mean of squares + epsilon) · scale over all axes from this one on."""
    axes = list(range(axis_of(axis, x.ndim), x.ndim))
    return torch.mul(x * torch.rsqrt(x.square().mean(axes, keepdim=True) + epsilon), scale)


@operator("MeanVarianceNormalization")
def mean_variance_normalization(x: Tensor, *, axes: list[int] | None = None) -> Tensor:
    """(x − mean) / (deviation + 1e-9)."""
    over = [0, 2, 3] if axes is None else axes
    centred = x - x.mean(over, keepdim=True)
    return centred / (centred.square().mean(over, keepdim=True).sqrt() + 1e-9)


@operator("LpNormalization")
def lp_normalization(x: Tensor, *, axis: int = -1, p: int = 2) -> Tensor:
    """x / ‖x‖_p along the axis; zeros stay zeros."""
    norm = torch.linalg.vector_norm(x, p, axis, keepdim=True)
    return torch.where(norm == 0, torch.zeros_like(x), x / torch.where(norm == 0, torch.ones_like(norm), norm))


@operator("LRN")
def local_response_normalization(
    x: Tensor, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0
) -> Tensor:
    """x / (bias + alpha/size Σ x² over neighbouring channels)^beta."""
    rows = x.square().reshape(x.shape[0], 1, x.shape[1], prod(x.shape[2:]))
    low = (size - 1) // 2
    sums = F.conv2d(F.pad(rows, (0, 0, low, size - 1 - low)), x.new_ones(1, 1, size, 1)).reshape(x.shape)
    return x / (bias + alpha / size * sums) ** beta
