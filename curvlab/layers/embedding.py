"""nn.Embedding: s = W̄ onehot(x), a linear map whose features are one-hot, so that Σ aaᵀ is a diagonal of counts."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curvlab.errors import UnsupportedLayer
from curvlab.layers.layer import Layer, Moments, adapt, named
from curvlab.shapes import Float


class EmbeddingLayer(Layer):
    """s = W̄ onehot(index) with W̄ = weightᵀ of shape (dimension, vocabulary)."""

    kind = "Embedding"
    by_rows = False
    rowwise = True

    def __init__(self, weight: Tensor, padding: int | None = None) -> None:
        self.parameters = named(weight=weight)
        self.padding = padding
        self.in_features, self.out_features = weight.shape

    def features(self, x: Tensor) -> Float[Tensor, "g n s i"]:
        """One-hot rows: large; `second_moment` does without them."""
        rows = F.one_hot(x.reshape(1, x.shape[0], -1).long(), self.in_features).to(self.parameters["weight"].dtype)
        if self.padding is not None:
            rows[..., self.padding] = 0  # torch gives the padding row no gradient
        return rows

    def outputs(self, y: Tensor) -> Float[Tensor, "g n s o"]:
        """Rows y[n, t]."""
        return y.reshape(1, y.shape[0], -1, self.out_features)

    def matrix(self, tensors: Mapping[str, Tensor]) -> Float[Tensor, "g o j"]:
        """The transposed table."""
        return tensors["weight"].mT[None]

    def split(self, matrix: Float[Tensor, "*n g o j"]) -> dict[str, Tensor]:
        """The table."""
        return {"weight": matrix.squeeze(-3).mT}

    def second_moment(self, x: Tensor, dtype: torch.dtype) -> Moments:
        """Counts of each token: Σ a = diag(Σ aaᵀ)."""
        counts = torch.bincount(x.reshape(-1).long(), minlength=self.in_features)[None].to(dtype)
        if self.padding is not None:
            counts[:, self.padding] = 0
        return Moments(counts, counts, x.numel())


@adapt.register
def _(module: nn.Embedding) -> Layer:
    if module.max_norm is not None:
        raise UnsupportedLayer("Embedding with max_norm", "its forward changes the weights")
    return EmbeddingLayer(module.weight, module.padding_idx)
