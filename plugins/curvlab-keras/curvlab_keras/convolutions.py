"""Conv1D/2D/3D, DepthwiseConv1D/2D and SeparableConv1D/2D: kernels (k…, in, out), images with their channels last."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import keras
import torch
from keras import ops
from torch import Tensor

from curvlab.layers.layer import Layer, Moments, Tap, Unrolled, adapt, join_bias, named, split_bias
from curvlab.layers.patch_moments import patch_second_moment
from curvlab.layers.patches import Geometry, patches
from curvlab.shapes import Float
from curvlab_keras.preactivation import Preactivation
from curvlab_keras.variables import check, first, value


class Convolution(Layer):
    """W̄_g of shape (out/g, in/g·K + 1), rearranged from the stored (k…, in/g, out); depthwise from (k…, g, out/g).

    Args:
        layer: has strides, padding, dilation_rate and data_format.
        kernel: its kernel.
        bias: its bias, or None.
        groups: number of independent maps.
        pointwise: the second half of a separable convolution, which has no stride and no padding.
    """

    by_rows = False

    def __init__(
        self, layer: Any, kernel: Tensor, bias: Tensor | None, groups: int = 1, pointwise: bool = False
    ) -> None:
        self.layer, self.kind, self.groups, self.pointwise = layer, type(layer).__name__, groups, pointwise
        self.parameters = named(weight=kernel, bias=bias)
        self.spatial = tuple(kernel.shape[:-2])
        # Channels are (in/g, out), or (g, out/g) where every channel has filters of its own.
        self.depthwise = not pointwise and hasattr(layer, "depth_multiplier")
        self.out_features = kernel.shape[-1] if self.depthwise else kernel.shape[-1] // groups
        self.in_features = prod(self.spatial) * (1 if self.depthwise else kernel.shape[-2])

    def geometry(self, x: Tensor) -> Geometry:
        """Of an image (n, c, …): "same" padding depends on its size where there is a stride."""
        axes = len(self.spatial)
        if self.pointwise:
            return Geometry(self.spatial, (1,) * axes, (1,) * axes, ((0, 0),) * axes)
        stride, dilation = _each(self.layer.strides, axes), _each(self.layer.dilation_rate, axes)
        padding = []
        for size, k, s, d in zip(x.shape[2:], self.spatial, stride, dilation, strict=True):
            reach = d * (k - 1)
            more = reach if s == 1 else max(0, (-(-size // s) - 1) * s + reach + 1 - size)
            low = {"same": more // 2, "causal": reach}.get(self.layer.padding, 0)
            padding.append((low, more - low if self.layer.padding == "same" else 0))
        return Geometry(self.spatial, stride, dilation, tuple(padding), groups=self.groups)

    def features(self, x: Tensor) -> Float[Tensor, "g n s i"]:
        """One patch per output position."""
        image = self._channels_first(x)
        return patches(image, self.geometry(image))

    def outputs(self, y: Tensor) -> Float[Tensor, "g n s o"]:
        """One pixel per output position."""
        rows = y.flatten(2).mT if self.layer.data_format == "channels_first" else y.flatten(1, -2)
        return rows.reshape(y.shape[0], -1, self.groups, self.out_features).permute(2, 0, 1, 3)

    def matrix(self, tensors: Mapping[str, Tensor]) -> Float[Tensor, "g o j"]:
        """Kernels as rows."""
        first, second = (-2, -1) if self.depthwise else (-1, -2)
        rows = tensors["weight"].movedim((first, second), (0, 1))
        return join_bias(rows.reshape(self.groups, self.out_features, self.in_features), tensors)

    def split(self, matrix: Float[Tensor, "*n g o j"]) -> dict[str, Tensor]:
        """Rows as kernels."""
        weight, bias = split_bias(matrix, self)
        lead, (second_last, last) = matrix.shape[:-3], self.parameters["weight"].shape[-2:]
        if self.depthwise:
            parts = weight.reshape(*lead, second_last, last, *self.spatial)
            return {"weight": parts.movedim((len(lead), len(lead) + 1), (-2, -1)), **bias}
        parts = weight.reshape(*lead, last, second_last, *self.spatial)
        return {"weight": parts.movedim((len(lead), len(lead) + 1), (-1, -2)), **bias}

    def second_moment(self, x: Tensor, dtype: torch.dtype) -> Moments:
        """Without unfolding where shifted channel products are cheaper."""
        image = self._channels_first(x)
        return Moments(*patch_second_moment(image, self.geometry(image), dtype))

    def modes(self, role: str) -> tuple[int, ...]:
        """(kernel positions, in, out): three modes (Ren 2022, section 4.7.2)."""
        shape = tuple(self.parameters[role].shape)
        return shape if role == "bias" else (prod(self.spatial), *shape[-2:])

    def _channels_first(self, x: Tensor) -> Tensor:
        return x if self.layer.data_format == "channels_first" else x.movedim(-1, 1)


class Separable(Unrolled):
    """A depthwise convolution and a pointwise one on its outputs: the maps "depthwise_kernel", "pointwise_kernel"."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        depthwise, pointwise = layer.depthwise_kernel.value, layer.pointwise_kernel.value
        self.layers = {
            "depthwise_kernel": Convolution(layer, depthwise, None, groups=depthwise.shape[-2]),
            "pointwise_kernel": Convolution(layer, pointwise, value(layer.bias), pointwise=True),
        }

    def forward(self, tap: Tap, *args: Any, **kwargs: Any) -> Any:
        """What the layer returns."""
        layer, x = self.layer, first(args, kwargs)
        options = {"dilation_rate": layer.dilation_rate, "data_format": layer.data_format}
        y = ops.depthwise_conv(x, layer.depthwise_kernel, layer.strides, layer.padding, **options)
        y = tap("depthwise_kernel", x, y)
        z = ops.conv(y, layer.pointwise_kernel, 1, "valid", data_format=layer.data_format)
        if layer.use_bias:
            axes = len(z.shape)
            shape = (1, -1, *(1,) * (axes - 2)) if layer.data_format == "channels_first" else (*(1,) * (axes - 1), -1)
            z = ops.add(z, ops.reshape(layer.bias, shape))
        z = tap("pointwise_kernel", y, z)
        return z if layer.activation is None else layer.activation(z)


def _each(size: Any, axes: int) -> tuple[int, ...]:
    return (size,) * axes if isinstance(size, int) else tuple(size)


def _adapted(layer: Any, base: type, groups: int) -> Unrolled:
    check(layer, base)
    return Preactivation(layer, "kernel", Convolution(layer, layer.kernel.value, value(layer.bias), groups))


@adapt.register
def _(layer: keras.layers.Conv1D) -> Unrolled:
    return _adapted(layer, keras.layers.Conv1D, layer.groups)


@adapt.register
def _(layer: keras.layers.Conv2D) -> Unrolled:
    return _adapted(layer, keras.layers.Conv2D, layer.groups)


@adapt.register
def _(layer: keras.layers.Conv3D) -> Unrolled:
    return _adapted(layer, keras.layers.Conv3D, layer.groups)


@adapt.register
def _(layer: keras.layers.DepthwiseConv1D) -> Unrolled:
    return _adapted(layer, keras.layers.DepthwiseConv1D, layer.kernel.shape[-2])


@adapt.register
def _(layer: keras.layers.DepthwiseConv2D) -> Unrolled:
    return _adapted(layer, keras.layers.DepthwiseConv2D, layer.kernel.shape[-2])


@adapt.register
def _(layer: keras.layers.SeparableConv1D) -> Unrolled:
    check(layer, keras.layers.SeparableConv1D)
    return Separable(layer)


@adapt.register
def _(layer: keras.layers.SeparableConv2D) -> Unrolled:
    check(layer, keras.layers.SeparableConv2D)
    return Separable(layer)
