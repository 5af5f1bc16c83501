"""Σ a over all rows of features, the rows of a convolution not formed: a patch of the sum is the sum of patches."""

from __future__ import annotations

from functools import singledispatch

from torch import Tensor

from curvlab.layers.convolution import ConvolutionLayer
from curvlab.layers.layer import Layer
from curvlab.shapes import Float


@singledispatch
def feature_total(layer: Layer, x: Tensor) -> Float[Tensor, "g i"]:
    """Σ_{n,t} a[g,n,t].

    Args:
        layer: the affine map.
        x: its prepared input, as captured.
    """
    return layer.features(x).sum((1, 2))


@feature_total.register
def _(layer: ConvolutionLayer, x: Tensor) -> Float[Tensor, "g i"]:
    # Every padding is linear: it copies pixels or writes zeros.
    return layer.features(x.sum(0, keepdim=True)).sum((1, 2))
