"""Activations: one formula each."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from curvlab.formats.onnx.operators.elementwise import aligned
from curvlab.formats.onnx.operators.table import axis_of, operator


@operator("Relu")
def relu(x: Tensor) -> Tensor:
    """max(x, 0)."""
    return torch.relu(x)


@operator("LeakyRelu")
def leaky_relu(x: Tensor, *, alpha: float = 0.01) -> Tensor:
    """x, or alpha · x below 0."""
    return F.leaky_relu(x, alpha)


@operator("PRelu", since=7)
def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """x, or slope · x below 0."""
    return torch.where(x < 0, slope * x, x)


@operator("PRelu", before=7)
def prelu_by_channel(x: Tensor, slope: Tensor) -> Tensor:
    """The slopes belong to axis 1."""
    return prelu(x, aligned(x, slope, int(slope.numel() > 1), 1))


@operator("ThresholdedRelu")
def thresholded_relu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """x above alpha, else 0."""
    return torch.where(x > alpha, x, torch.zeros_like(x))


@operator("Elu")
def elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """x, or alpha (exp(x) − 1) below 0."""
    return F.elu(x, alpha)


@operator("Celu")
def celu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """max(0, x) + min(0, alpha (exp(x / alpha) − 1))."""
    return F.celu(x, alpha)


@operator("Selu")
def selu(x: Tensor, *, alpha: float = 1.6732632423543772, gamma: float = 1.0507009873554805) -> Tensor:
    """gamma (x, or alpha (exp(x) − 1) below 0)."""
    return gamma * F.elu(x, alpha)


@operator("Sigmoid")
def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(−x))."""
    return torch.sigmoid(x)


@operator("HardSigmoid")
def hard_sigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    """alpha · x + beta, kept between 0 and 1."""
    return torch.clamp(alpha * x + beta, 0, 1)


@operator("HardSwish")
def hard_swish(x: Tensor) -> Tensor:
    """x · clamp(x / 6 + 1/2, 0, 1)."""
    return F.hardswish(x)


@operator("Softplus")
def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x))."""
    return F.softplus(x)


@operator("Softsign")
def softsign(x: Tensor) -> Tensor:
    """x / (1 + |x|)."""
    return F.softsign(x)


@operator("Gelu")
def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    """x Φ(x)."""
    return F.gelu(x, approximate=approximate)


@operator("Mish")
def mish(x: Tensor) -> Tensor:
    """x tanh(log(1 + exp(x)))."""
    return F.mish(x)


@operator("Swish")
def swish(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """x σ(alpha · x)."""
    return x * torch.sigmoid(alpha * x)


@operator("SwiGLU")
def swiglu(a: Tensor, b: Tensor, *, alpha: float = 1.0) -> Tensor:
    """a σ(alpha · a) b."""
    return swish(a, alpha=alpha) * b


@operator("Shrink")
def shrink(x: Tensor, *, bias: float = 0.0, lambd: float = 0.5) -> Tensor:
    """x + bias below −lambd, x − bias above lambd, else 0."""
    inside = torch.zeros_like(x)
    return torch.where(x < -lambd, x + bias, torch.where(x > lambd, x - bias, inside)).to(x.dtype)


@operator("Softmax", since=13)
def softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    """exp(x) / Σ exp(x) along the axis."""
    return torch.softmax(x, axis)


@operator("LogSoftmax", since=13)
def log_softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    """x − log Σ exp(x) along the axis."""
    return torch.log_softmax(x, axis)


@operator("Hardmax", since=13)
def hardmax(x: Tensor, *, axis: int = -1) -> Tensor:
    """1 at the first largest entry along the axis, else 0."""
    # torch.argmax takes any of several largest entries; cumulative counting finds the first one.
    largest = x == x.amax(axis, keepdim=True)
    return (largest & (largest.cumsum(axis) == 1)).to(x.dtype)


@operator("Softmax", before=13)
def softmax_of_rows(x: Tensor, *, axis: int = 1) -> Tensor:
    """Along all axes from this one on, taken as one."""
    return softmax(_rows(x, axis)).reshape(x.shape)


@operator("LogSoftmax", before=13)
def log_softmax_of_rows(x: Tensor, *, axis: int = 1) -> Tensor:
    """Along all axes from this one on, taken as one."""
    return log_softmax(_rows(x, axis)).reshape(x.shape)


@operator("Hardmax", before=13)
def hardmax_of_rows(x: Tensor, *, axis: int = 1) -> Tensor:
    """Along all axes from this one on, taken as one."""
    return hardmax(_rows(x, axis)).reshape(x.shape)


def _rows(x: Tensor, axis: int) -> Tensor:
    axis = axis_of(axis, x.ndim)
    return x if axis == x.ndim - 1 else x.flatten(axis)
