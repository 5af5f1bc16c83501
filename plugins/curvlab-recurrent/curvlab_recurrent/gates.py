"""Gates: s_k[n,t] = W̄_k ā[n,t], the maps of a recurrent cell's gates k, stacked in one weight, fed by the same
rows."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from curvlab.layers.layer import Layer, Moments, join_bias, named, split_bias
from curvlab.linalg.gram import upper_gram
from curvlab.shapes import Float


class Gates(Layer):
    """W̄_k = [W_k b_k] of shape (hidden, in + 1): rows k·hidden … (k+1)·hidden − 1 of the stored weight and bias.

    Args:
        kind: what a person calls the module ("LSTM").
        weight: `(gates·hidden, in)`.
        bias: `(gates·hidden,)`, or None.
        gates: their number: 4 of an LSTM (i, f, g, o), 3 of a GRU (r, z, n), 1 of a plain RNN.
    """

    def __init__(self, kind: str, weight: nn.Parameter, bias: nn.Parameter | None, gates: int) -> None:
        self.kind, self.groups = kind, gates
        self.parameters = named(weight=weight, bias=bias)
        self.out_features, self.in_features = weight.shape[0] // gates, weight.shape[1]

    def features(self, x: Tensor) -> Float[Tensor, "g n s i"]:
        """Rows x[n, t], the same memory for every gate."""
        return x.reshape(1, x.shape[0], -1, self.in_features).expand(self.groups, -1, -1, -1)

    def outputs(self, y: Tensor) -> Float[Tensor, "g n s o"]:
        """Rows of each gate's share of y[n, t]."""
        return y.reshape(y.shape[0], -1, self.groups, self.out_features).permute(2, 0, 1, 3)

    def matrix(self, tensors: Mapping[str, Tensor]) -> Float[Tensor, "g o j"]:
        """[W_k b_k] of every gate."""
        return join_bias(tensors["weight"].reshape(self.groups, self.out_features, self.in_features), tensors)

    def split(self, matrix: Float[Tensor, "*n g o j"]) -> dict[str, Tensor]:
        """The gates stacked again."""
        weight, bias = split_bias(matrix, self)
        return {"weight": weight.reshape(*matrix.shape[:-3], *self.parameters["weight"].shape), **bias}

    def second_moment(self, x: Tensor, dtype: torch.dtype) -> Moments:
        """Multiplied once for all gates."""
        rows = x.reshape(-1, self.in_features).to(dtype)
        total, second = rows.sum(0), upper_gram(rows)
        return Moments(total.expand(self.groups, -1), second.expand(self.groups, -1, -1), rows.shape[0])
