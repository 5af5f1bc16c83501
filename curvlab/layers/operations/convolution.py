"""F.conv1d, conv2d, conv3d and their transposes, called without a module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """The map of the module of the same sizes."""
    sizes = {"stride": stride, "padding": padding, "dilation": dilation}
    return _use(ConvolutionLayer, _MODULES, input, {"weight": weight, "bias": bias}, sizes, groups)


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
    """The map of the module of the same sizes."""
    sizes = {"stride": stride, "padding": padding, "output_padding": output_padding, "dilation": dilation}
    return _use(TransposedConvolutionLayer, _TRANSPOSED, input, {"weight": weight, "bias": bias}, sizes, groups)


def _use(
    layer: type[ConvolutionLayer],
    modules: tuple[Any, ...],
    input: Any,
    given: Mapping[str, Any],
    sizes: Mapping[str, Sizes | str],
    groups: int,
) -> list[AffineUse] | None:
    """The map of a call, whose geometry is that of a module without numbers."""
    weight = given["weight"]
    if not isinstance(input, Tensor) or not isinstance(weight, Expression) or input.ndim != weight.value.ndim:
        return None
    first, second, *kernel = weight.value.shape
    options = {name: size if isinstance(size, str) else _each(size, len(kernel)) for name, size in sizes.items()}
    channels = (first, second * groups) if layer is TransposedConvolutionLayer else (second * groups, first)
    with torch.device("meta"):
        module = modules[len(kernel) - 1](*channels, tuple(kernel), bias=False, groups=groups, **options)

    def make(weight: Tensor, bias: Tensor | None = None) -> ConvolutionLayer:
        return layer(module, weight, bias)

    return [AffineUse(make, weights(**given), input, input, key=(layer.__name__, groups, str(options)))]


def _each(sizes: Sizes, axes: int) -> tuple[int, ...]:
    found = (sizes,) if isinstance(sizes, int) else tuple(sizes)
    return found * axes if len(found) == 1 else found
