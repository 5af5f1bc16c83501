"""s = f(x; θ): a layer as the linear function of its parameters that it is, at an input that was recorded.

By default s[g,n,t] = W̄_g ā[g,n,t] over the layer's own rows of features, which costs nothing where these are a view of
the input. A layer whose rows would have to be unfolded registers its module's own kernel, as the convolutions do here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import singledispatch

from torch import Tensor
from torch.nn import functional as F

from curvlab.layers.convolution import ConvolutionLayer
from curvlab.layers.embedding import EmbeddingLayer
from curvlab.layers.layer import Layer
from curvlab.layers.transposed_convolution import TransposedConvolutionLayer

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@singledispatch
def neuron_map(layer: Layer, x: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
    """f(x; θ), linear in θ, so that it is its own Jacobian-vector product and has a graph where θ has one.

    Args:
        layer: the affine map.
        x: its prepared input, as captured.
        tensors: θ by role, in the shapes of the layer's parameters.

    Returns:
        One number per output and row, in whatever order: nothing but inner products of them is asked for.
    """
    dtype = next(iter(tensors.values())).dtype
    rows = layer.features(x).flatten(1, 2).to(dtype)
    # Weights and bias apart: cutting W̄ up would have its gradient put together again.
    weights = {role: t for role, t in tensors.items() if role != "bias"}
    outputs = rows @ layer.matrix(weights).mT if weights else rows.new_zeros(*rows.shape[:2], layer.height)
    return outputs + tensors["bias"].reshape(layer.groups, 1, layer.height) if layer.biased else outputs


@neuron_map.register
def _(layer: ConvolutionLayer, x: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
    geometry, weight = layer.geometry, tensors["weight"]
    padding = tuple(low for low, _ in geometry.padding)
    if geometry.padding_mode != "zeros" or any(low != high for low, high in geometry.padding):
        x, padding = geometry.pad(x), (0,) * len(padding)
    convolve = _CONVOLUTIONS[len(padding)]
    y: Tensor = convolve(
        x.to(weight.dtype), weight, tensors.get("bias"), geometry.stride, padding, geometry.dilation, geometry.groups
    )
    return y


@neuron_map.register
def _(layer: TransposedConvolutionLayer, x: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
    geometry, weight = layer.geometry, tensors["weight"]
    reach = [d * (k - 1) for d, k in zip(geometry.dilation, geometry.kernel, strict=True)]
    # `Geometry.of` keeps the padding of the image the kernel moves over: (reach − p, reach − p + output padding).
    padding = [r - low for r, (low, _) in zip(reach, geometry.padding, strict=True)]
    more = [high - low for low, high in geometry.padding]
    convolve = _TRANSPOSED[len(padding)]
    y: Tensor = convolve(
        x.to(weight.dtype),
        weight,
        tensors.get("bias"),
        geometry.stride,
        padding,
        more,
        geometry.groups,
        geometry.dilation,
    )
    return y


@neuron_map.register
def _(layer: EmbeddingLayer, x: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
    y = F.embedding(x.long(), tensors["weight"])
    # The padding row's features are zero (torch gives it no gradient), so its outputs are as well.
    return y if layer.padding is None else y.masked_fill((x == layer.padding)[..., None], 0.0)
