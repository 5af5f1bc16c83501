"""Convolutions whose kernels are computed by the graph; those of constant kernels become modules (see `layers`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from curvlab.formats.onnx.operators.geometry import Window, window
from curvlab.formats.onnx.operators.shapes import padded
from curvlab.formats.onnx.operators.table import Result, UnsupportedOperator, operator

_FORWARD: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED: dict[int, Callable[..., Tensor]] = {
    1: F.conv_transpose1d,
    2: F.conv_transpose2d,
    3: F.conv_transpose3d,
}


def with_padding(x: Tensor, w: Window, value: float = 0.0) -> Tensor:
    """x with the window's padding on its spatial axes."""
    if not any((*w.low, *w.high)):
        return x
    return padded(x, (*w.low, *w.high), range(2, x.ndim), "constant", value)


@operator("Conv")
def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: list[int] | None = None,
    group: int = 1,
    kernel_shape: list[int] | None = None,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Tensor:
    """y[n, o, t] = Σ weight[o, i, u] x[n, i, stride · t + dilation · u − pad] + bias[o]."""
    axes = spatial_axes(x)
    w = window(x.shape[2:], kernel_shape or weight.shape[2:], strides, dilations, pads, auto_pad)
    return _FORWARD[axes](with_padding(x, w), weight, bias, w.strides, 0, w.dilations, group)


@operator("ConvTranspose")
def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: list[int] | None = None,
    group: int = 1,
    kernel_shape: list[int] | None = None,
    output_padding: list[int] | None = None,
    output_shape: list[int] | None = None,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Tensor:
    """The transpose of the convolution with this kernel, cropped by the padding."""
    axes = spatial_axes(x)
    low, high, more = transposed_padding(
        x.shape[2:], weight.shape[2:], strides, dilations, pads, auto_pad, output_padding, output_shape
    )
    full = _TRANSPOSED[axes](
        x, weight, None, tuple(strides or (1,) * axes), 0, 0, group, tuple(dilations or (1,) * axes)
    )
    crop = [-p for p in low] + [m - p for p, m in zip(high, more, strict=True)]
    y = padded(full, crop, range(2, x.ndim), "constant")
    return y if bias is None else y + bias.reshape(-1, *(1,) * axes)


def transposed_padding(
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int] | None,
    dilations: Sequence[int] | None,
    pads: Sequence[int] | None,
    auto_pad: str,
    output_padding: Sequence[int] | None,
    output_shape: Sequence[int] | None,
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """What is cropped before and behind each axis, and what is added behind; an output shape decides the crop."""
    w = window(sizes, kernel, strides, dilations, pads, "NOTSET" if auto_pad.startswith("SAME") else auto_pad)
    more = tuple(output_padding or (0,) * len(kernel))
    if output_shape is None and not auto_pad.startswith("SAME"):
        return w.low, w.high, more
    wanted = [n * s for n, s in zip(sizes, w.strides, strict=True)] if output_shape is None else output_shape
    wanted = wanted[-len(kernel) :]
    total = [
        s * (n - 1) + m + reach - size
        for n, s, m, reach, size in zip(sizes, w.strides, more, w.reach, wanted, strict=True)
    ]
    # What is too little is added behind; the standard splits an odd crop by auto_pad.
    extra = tuple(max(0, -t) + m for t, m in zip(total, more, strict=True))
    crop = [max(0, t) for t in total]
    less, rest = tuple(t // 2 for t in crop), tuple(t - t // 2 for t in crop)
    return (less, rest, extra) if auto_pad == "SAME_UPPER" else (rest, less, extra)


def spatial_axes(x: Tensor) -> int:
    """How many axes follow examples and channels.

    Raises:
        UnsupportedOperator: none, or more than three.
    """
    if not 3 <= x.ndim <= 5:
        raise UnsupportedOperator(f"a convolution over {x.ndim - 2} axes", "torch has them over one, two and three")
    return x.ndim - 2


@operator("DeformConv")
def deformable_convolution(
    x: Tensor,
    weight: Tensor,
    offset: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    dilations: list[int] | None = None,
    group: int = 1,
    kernel_shape: list[int] | None = None,
    offset_group: int = 1,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Tensor:
    """A convolution that reads x between its pixels, bilinearly, where the offsets point (two spatial axes)."""
    if x.ndim != 4:
        raise UnsupportedOperator("operator DeformConv", "only images with two axes are supported")
    w = window(x.shape[2:], weight.shape[2:], strides, dilations, pads, "NOTSET")
    n, channels = x.shape[:2]
    height, width = offset.shape[2:]
    taps = w.kernel[0] * w.kernel[1]
    moved = offset.reshape(n, offset_group, taps, 2, height, width)
    base = [
        (torch.arange(k) * d)[:, None] + torch.arange(size) * s - low
        for k, d, s, low, size in zip(w.kernel, w.dilations, w.strides, w.low, (height, width), strict=True)
    ]
    rows = base[0][:, None, :, None].expand(-1, w.kernel[1], -1, width).reshape(taps, height, width) + moved[:, :, :, 0]
    columns = (
        base[1][None, :, None, :].expand(w.kernel[0], -1, height, -1).reshape(taps, height, width) + moved[:, :, :, 1]
    )
    images = x.reshape(n * offset_group, channels // offset_group, *x.shape[2:])
    scale = [2 / size for size in x.shape[2:]]
    grid = torch.stack([(columns + 0.5) * scale[1] - 1, (rows + 0.5) * scale[0] - 1], -1)
    grid = grid.reshape(n * offset_group, taps * height, width, 2).to(x.dtype)
    read = F.grid_sample(images, grid, "bilinear", "zeros", align_corners=False)
    read = read.reshape(n, offset_group, channels // offset_group, taps, height * width)
    if mask is not None:
        read = read * mask.reshape(n, offset_group, 1, taps, height * width)
    patches = read.reshape(n, group, channels // group * taps, height * width)
    y = torch.matmul(weight.reshape(group, weight.shape[0] // group, -1), patches)
    y = y.reshape(n, weight.shape[0], height, width)
    return y if bias is None else y + bias.reshape(-1, 1, 1)


@operator("CausalConvWithState")
def causal_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, past: Tensor | None = None, *, activation: str = "none"
) -> Result:
    """A depthwise convolution that sees no later step; the last steps are handed on."""
    reach = weight.shape[-1] - 1
    before = x.new_zeros(*x.shape[:-1], reach) if past is None else past
    whole = torch.cat([before, x], -1)
    y = F.conv1d(whole, weight, bias, groups=x.shape[1])
    if activation in ("silu", "swish"):
        y = F.silu(y)
    elif activation != "none":
        raise UnsupportedOperator(f"operator CausalConvWithState with the activation {activation!r}", "not supported")
    return y, whole[..., whole.shape[-1] - reach :]
