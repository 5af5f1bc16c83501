"""Σ āāᵀs = Σ (āᵀs)ā over all rows: a product with the second moment of a layer's features, which is not formed."""

from __future__ import annotations

from functools import singledispatch

import torch
from torch import Tensor

from curvlab.layers.convolution import ConvolutionLayer
from curvlab.layers.layer import Layer
from curvlab.shapes import Float


@singledispatch
def moment_product(layer: Layer, x: Tensor, s: Float[Tensor, "g j"]) -> Float[Tensor, "g j"]:
    """Σ_{n,t} (ā[g,n,t]ᵀs[g]) ā[g,n,t] (Ren 2022, eq. 3.15): the layer's features once forth and once back.

    Args:
        layer: the affine map.
        x: its prepared input, as captured.
        s: a vector per group, with the 1 of the bias where there is one.
    """
    rows = layer.features(x).flatten(1, 2).to(s.dtype)
    weights, bias = s[:, : layer.in_features, None], s[:, layer.in_features :, None]
    lengths = rows @ weights + bias if layer.biased else rows @ weights
    back = (lengths.mT @ rows)[:, 0]
    return torch.cat([back, lengths.sum(1)], dim=1) if layer.biased else back


@moment_product.register
def _(layer: ConvolutionLayer, x: Tensor, s: Float[Tensor, "g j"]) -> Float[Tensor, "g j"]:
    # s is a kernel with one output channel; the way back is that kernel's gradient. No patch is formed.
    geometry = layer.geometry
    axes = list(range(2, 2 + len(geometry.kernel)))
    kernel = s[:, : layer.in_features].reshape(layer.groups, -1, *geometry.kernel)
    kernel = kernel.flip(axes) if geometry.transposed else kernel
    how = geometry.step, [0] * len(axes), geometry.dilation, False, [0] * len(axes), layer.groups
    image, bias = geometry.pad(x.to(s.dtype)), s[:, -1] if layer.biased else None
    lengths = torch.convolution(image, kernel, bias, *how)
    sizes, wanted = [layer.groups] if layer.biased else None, [False, True, layer.biased]
    _, back, total = torch.ops.aten.convolution_backward(lengths, image, kernel, sizes, *how, wanted)
    back = (back.flip(axes) if geometry.transposed else back).flatten(1)
    return torch.cat([back, total[:, None]], dim=1) if layer.biased else back
