"""Pooling over windows."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from curvlab.formats.onnx.operators.convolution import spatial_axes, with_padding
from curvlab.formats.onnx.operators.geometry import Window, window
from curvlab.formats.onnx.operators.table import Result, UnsupportedOperator, integers, operator

_MAX: dict[int, Callable[..., tuple[Tensor, Tensor]]] = {
    1: F.max_pool1d_with_indices,
    2: F.max_pool2d_with_indices,
    3: F.max_pool3d_with_indices,
}


def covered(x: Tensor, w: Window, ceil_mode: int) -> Window:
    """The window with padding behind for the last, incomplete one, which begins within the data or its padding."""
    if not ceil_mode:
        return w
    high = list(w.high)
    for axis, size in enumerate(x.shape[2:]):
        whole, stride = size + w.low[axis] + w.high[axis], w.strides[axis]
        count = -(-(whole - w.reach[axis]) // stride) + 1
        if (count - 1) * stride >= size + w.low[axis]:
            count -= 1
        high[axis] += max(0, (count - 1) * stride + w.reach[axis] - whole)
    return Window(w.kernel, w.strides, w.dilations, w.low, tuple(high))


@operator("MaxPool")
def max_pool(
    x: Tensor,
    *,
    kernel_shape: list[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: list[int] | None = None,
    pads: list[int] | None = None,
    storage_order: int = 0,
    strides: list[int] | None = None,
    outputs: int = 1,
) -> Result:
    """The largest entry of each window, and its position in x."""
    axes = spatial_axes(x)
    w = covered(x, window(x.shape[2:], kernel_shape, strides, dilations, pads, auto_pad), ceil_mode)
    floating = x if x.is_floating_point() else x.float()  # whole numbers below 2^24 are exact
    whole = with_padding(floating, w, -float("inf"))
    y, where = _MAX[axes](whole, w.kernel, w.strides, 0, w.dilations)
    return (y.to(x.dtype), _positions(where, whole, x, w, storage_order))[:outputs]


def _positions(where: Tensor, whole: Tensor, x: Tensor, w: Window, columns_first: int) -> Tensor:
    """Places in the padded image as places in x, counted over all examples and channels."""
    parts, left = [], where
    for size, low in zip(reversed(whole.shape[2:]), reversed(w.low), strict=True):
        parts.append(left % size - low)
        left = left // size
    parts.reverse()
    flat = torch.zeros_like(where)
    order = range(len(parts)) if not columns_first else reversed(range(len(parts)))
    for axis in order:
        flat = flat * x.shape[2 + axis] + parts[axis]
    planes = torch.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *(1,) * len(parts))
    return flat + planes * x[0, 0].numel()


@operator("AveragePool")
def average_pool(
    x: Tensor,
    *,
    kernel_shape: list[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: list[int] | None = None,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Tensor:
    """The mean of each window; padding counts only if asked for, what lies beyond it never."""
    w = window(x.shape[2:], kernel_shape, strides, dilations, pads, auto_pad)
    full = covered(x, w, ceil_mode)
    counted = torch.ones_like(x[:1, :1])
    if count_include_pad:
        beyond = Window(
            w.kernel,
            w.strides,
            w.dilations,
            (0,) * len(w.low),
            tuple(b - a for a, b in zip(w.high, full.high, strict=True)),
        )
        counted = with_padding(with_padding(counted, w, 1.0), beyond)
    else:
        counted = with_padding(counted, full)
    return _window_sums(with_padding(x, full), full) / _window_sums(counted, full)


def _window_sums(x: Tensor, w: Window) -> Tensor:
    """Σ over each window of every channel."""
    spatial_axes(x)
    plane = x.reshape(-1, 1, *x.shape[2:])
    convolve = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[x.ndim]
    y = convolve(plane, x.new_ones(1, 1, *w.kernel), None, w.strides, 0, w.dilations)
    return y.reshape(*x.shape[:2], *y.shape[2:])


@operator("LpPool")
def lp_pool(
    x: Tensor,
    *,
    kernel_shape: list[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: list[int] | None = None,
    p: float = 2,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Tensor:
    """(Σ |x|^p)^(1/p) of each window."""
    w = covered(x, window(x.shape[2:], kernel_shape, strides, dilations, pads, auto_pad), ceil_mode)
    return _window_sums(with_padding(x.abs() ** p, w), w) ** (1 / p)


@operator("GlobalAveragePool")
def global_average_pool(x: Tensor) -> Tensor:
    """The mean over all spatial axes, which stay with length 1."""
    return x.mean(list(range(2, x.ndim)), keepdim=True)


@operator("GlobalMaxPool")
def global_max_pool(x: Tensor) -> Tensor:
    """The largest entry over all spatial axes, which stay with length 1."""
    return x.amax(list(range(2, x.ndim)), keepdim=True)


@operator("GlobalLpPool")
def global_lp_pool(x: Tensor, *, p: float = 2) -> Tensor:
    """(Σ |x|^p)^(1/p) over all spatial axes, which stay with length 1."""
    norm: Tensor = torch.linalg.vector_norm(x, p, list(range(2, x.ndim)), keepdim=True)
    return norm


@operator("MaxUnpool")
def max_unpool(
    x: Tensor,
    where: Tensor,
    output_shape: Tensor | None = None,
    *,
    kernel_shape: list[int],
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Tensor:
    """The entries back at their positions, zeros elsewhere."""
    w = window(x.shape[2:], kernel_shape, strides, None, pads, "NOTSET")
    sizes = zip(x.shape[2:], w.strides, w.low, w.high, w.kernel, strict=True)
    spatial = [(n - 1) * s - low - high + k for n, s, low, high, k in sizes]
    own = [*x.shape[:2], *spatial]
    shape = own if output_shape is None else integers(output_shape)
    if any(a < b for a, b in zip(shape, own, strict=True)):
        raise UnsupportedOperator("operator MaxUnpool to a smaller shape", "its positions lie outside")
    flat = torch.zeros(own, dtype=x.dtype).reshape(-1)
    y = flat.scatter(0, where.reshape(-1), x.reshape(-1)).reshape(own)
    return F.pad(y, [p for a, b in zip(reversed(shape), reversed(own), strict=True) for p in (0, a - b)])
