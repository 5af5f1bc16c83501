"""s = f(x; θ): a layer as the linear function of its parameters that it is, at an input that was recorded; and its Jᵀ.

By default s[g,n,t] = W̄_g ā[g,n,t] over the layer's own rows of features, which costs nothing where these are a view of
the input. A layer whose rows would have to be unfolded registers its module's own kernel, as the convolutions do here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from curvlab.layers.convolution import ConvolutionLayer
from curvlab.layers.embedding import EmbeddingLayer
from curvlab.layers.layer import Layer
from curvlab.layers.transposed_convolution import TransposedConvolutionLayer
from curvlab.shapes import Float


@singledispatch
def neuron_map(layer: Layer, x: Tensor, tensors: Mapping[str, Tensor]) -> Float[Tensor, "g n s o"]:
    """f(x; θ), linear in θ, so that it is its own Jacobian-vector product and has a graph where θ has one.

    Args:
        layer: the affine map.
        x: its prepared input, as captured.
        tensors: θ by role, in the shapes of the layer's parameters.

    Returns:
        The rows s[g,n,t], as `layer.outputs` gives them for the module's output.
    """
    dtype = next(iter(tensors.values())).dtype
    features = layer.features(x)
    rows = features.flatten(1, 2).to(dtype)
    # Weights and bias apart: cutting W̄ up would have its gradient put together again.
    weights = {role: t for role, t in tensors.items() if role != "bias"}
    outputs = rows @ layer.matrix(weights).mT if weights else rows.new_zeros(*rows.shape[:2], layer.out_features)
    if layer.biased:
        outputs = outputs + tensors["bias"].reshape(layer.groups, 1, layer.out_features)
    return outputs.view(*features.shape[:3], layer.out_features)


@neuron_map.register
def _(layer: ConvolutionLayer, x: Tensor, tensors: Mapping[str, Tensor]) -> Float[Tensor, "g n s o"]:
    weight = tensors["weight"]
    x, how = _kernel(layer, x.to(weight.dtype))
    return layer.outputs(torch.convolution(x, weight, tensors.get("bias"), *how))


@neuron_map.register
def _(layer: EmbeddingLayer, x: Tensor, tensors: Mapping[str, Tensor]) -> Float[Tensor, "g n s o"]:
    y = F.embedding(x.long(), tensors["weight"])
    # The padding row's features are zero (torch gives it no gradient), so its outputs are as well.
    return layer.outputs(y if layer.padding is None else y.masked_fill((x == layer.padding)[..., None], 0.0))


@singledispatch
def neuron_pullback(
    layer: Layer, x: Tensor, y: Float[Tensor, "g n s o"], tensors: Mapping[str, Tensor]
) -> Float[Tensor, "g o j"]:
    """Jᵀy as W̄: the gradient of Σ y ⊙ f(x; θ) by θ, the same at every θ; arguments as in `neuron_map`.

    By the features Σ y āᵀ, or by autograd through the kernel that the layer has registered.
    """
    if neuron_map.dispatch(type(layer)) is neuron_map.dispatch(Layer):
        rows, y = layer.features(x).flatten(1, 2).to(y.dtype), y.flatten(1, 2)
        if not layer.biased:
            return y.mT @ rows
        return torch.cat([y.mT @ rows, y.sum(1)[..., None]], dim=2)
    with torch.enable_grad():
        variables = {role: t.detach().requires_grad_() for role, t in tensors.items()}
        parts = torch.autograd.grad(neuron_map(layer, x, variables), list(variables.values()), y)
    return layer.matrix(dict(zip(variables, parts, strict=True)))


@neuron_pullback.register
def _(
    layer: ConvolutionLayer, x: Tensor, y: Float[Tensor, "g n s o"], tensors: Mapping[str, Tensor]
) -> Float[Tensor, "g o j"]:
    weight, outputs = tensors["weight"], layer.geometry.output_shape(x.shape[2:])
    x, how = _kernel(layer, x.to(weight.dtype))
    y = y.permute(1, 0, 3, 2).reshape(len(x), -1, *outputs)
    biases = [layer.groups * layer.out_features] if layer.biased else None
    wanted = [False, True, layer.biased]
    _, by_weight, by_bias = torch.ops.aten.convolution_backward(y, x, weight, biases, *how, wanted)
    return layer.matrix({"weight": by_weight, **({"bias": by_bias} if layer.biased else {})})


def _kernel(layer: ConvolutionLayer, x: Tensor) -> tuple[Tensor, tuple[Any, ...]]:
    """The input, padded where the kernel cannot do it, and (stride, padding, dilation, transposed?, output padding,
    groups)."""
    geometry = layer.geometry
    padding, none = [low for low, _ in geometry.padding], [0] * len(geometry.padding)
    if isinstance(layer, TransposedConvolutionLayer):
        reach = [d * (k - 1) for d, k in zip(geometry.dilation, geometry.kernel, strict=True)]
        # `Geometry.of` keeps the padding of the image the kernel moves over: (reach − p, reach − p + output padding).
        own = [r - low for r, low in zip(reach, padding, strict=True)]
        more = [high - low for low, high in geometry.padding]
        return x, (geometry.stride, own, geometry.dilation, True, more, geometry.groups)
    if geometry.padding_mode != "zeros" or any(low != high for low, high in geometry.padding):
        x, padding = geometry.pad(x), none
    return x, (geometry.stride, padding, geometry.dilation, False, none, geometry.groups)
