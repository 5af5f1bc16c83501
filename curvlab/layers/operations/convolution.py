"""F.conv1d, conv2d, conv3d and their transposes, called without a module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from curvlab.layers.convolution import ConvolutionLayer
from curvlab.layers.expression import Expression
from curvlab.layers.operations.operation import AffineUse, register, weights
from curvlab.layers.transposed_convolution import TransposedConvolutionLayer

Sizes = int | Sequence[int]
_MODULES: tuple[Any, ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED: tuple[Any, ...] = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@register(torch.conv1d, torch.conv2d, torch.conv3d)
def convolution(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> list[AffineUse] | None:
    """As the module of the same sizes."""
    if not isinstance(input, Tensor) or not isinstance(weight, Expression) or input.ndim != weight.value.ndim:
        return None
    shape, axes = weight.value.shape, weight.value.ndim - 2
    options: dict[str, Any] = {"stride": _each(stride, axes), "dilation": _each(dilation, axes), "groups": groups}
    options["padding"] = padding if isinstance(padding, str) else _each(padding, axes)
    with torch.device("meta"):
        made = _MODULES[axes - 1](shape[1] * groups, shape[0], tuple(shape[2:]), bias=False, **options)

    def make(weight: Tensor, bias: Tensor | None = None) -> ConvolutionLayer:
        return ConvolutionLayer(made, weight, bias)

    return [AffineUse(make, weights(weight=weight, bias=bias), input, input, key=str(options))]


@register(torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d)
def transposed_convolution(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> list[AffineUse] | None:
    """As the module of the same sizes."""
    if not isinstance(input, Tensor) or not isinstance(weight, Expression) or input.ndim != weight.value.ndim:
        return None
    shape, axes = weight.value.shape, weight.value.ndim - 2
    given = {"stride": stride, "padding": padding, "output_padding": output_padding, "dilation": dilation}
    options = {name: _each(value, axes) for name, value in given.items()}
    with torch.device("meta"):
        made = _TRANSPOSED[axes - 1](
            shape[0], shape[1] * groups, tuple(shape[2:]), bias=False, groups=groups, **options
        )

    def make(weight: Tensor, bias: Tensor | None = None) -> TransposedConvolutionLayer:
        return TransposedConvolutionLayer(made, weight, bias)

    return [AffineUse(make, weights(weight=weight, bias=bias), input, input, key=str((options, groups)))]


def _each(sizes: Sizes, axes: int) -> tuple[int, ...]:
    found = (sizes,) if isinstance(sizes, int) else tuple(sizes)
    return found * axes if len(found) == 1 else found
