"""Σ a and Σ a⊙a over all rows of features, without forming the rows where the layer has a cheaper method (LNB, section
3.5)."""

from __future__ import annotations

from functools import singledispatch

import torch
from torch import Tensor

from curvlab.layers.convolution import ConvolutionLayer
from curvlab.layers.embedding import EmbeddingLayer
from curvlab.layers.layer import Layer, Moments
from curvlab.layers.patches import patches


@singledispatch
def feature_sums(layer: Layer, x: Tensor, dtype: torch.dtype) -> Moments:
    """Σ a `[g, i]` and the diagonal Σ a⊙a `[g, i]` of Σ aaᵀ, with the number of rows.

    Args:
        layer: the affine map.
        x: its prepared input, as captured.
        dtype: of the sums.
    """
    rows = layer.features(x).flatten(1, 2).to(dtype)
    return Moments(rows.sum(1), rows.square().sum(1), rows.shape[1])


@feature_sums.register
def _(layer: ConvolutionLayer, x: Tensor, dtype: torch.dtype) -> Moments:
    # A patch of squares is the square of the patch, and every padding is linear, so that it copies pixels or writes
    # zeros: the two images Σ_n x[n] and Σ_n x[n]⊙x[n] say all.
    x = x.to(dtype)
    sums = patches(torch.stack([x.sum(0), x.square().sum(0)]), layer.geometry)
    total, square = sums.sum(2).unbind(1)
    return Moments(total, square, x.shape[0] * sums.shape[2])


@feature_sums.register
def _(layer: EmbeddingLayer, x: Tensor, dtype: torch.dtype) -> Moments:
    return layer.second_moment(x, dtype)
