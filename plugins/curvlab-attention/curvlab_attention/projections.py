"""Projections: s_k[n,t] = W̄_k ā_k[n,t] for query, key and value, whose matrices are stacked in one weight.

In self-attention the three see the same rows; else each its own. Where queries and keys differ in number, the fewer
count as padded with zero rows that nothing depends on: gradients are exact, averages are over the longer of the two.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from curvlab.layers.layer import Layer, Moments, join_bias, named, split_bias
from curvlab.linalg.gram import upper_gram
from curvlab.shapes import Float

KIND = "MultiheadAttention"


class Projections(Layer):
    """W̄_k = [W_k b_k] of shape (width, width + 1): rows of the stored weight and bias, query, key, value.

    Args:
        weight: `(3·width, width)`.
        bias: `(3·width,)`, or None.
    """

    kind = KIND
    groups = 3

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter | None) -> None:
        self.parameters = named(weight=weight, bias=bias)
        self.out_features = self.in_features = weight.shape[1]

    def features(self, x: Tensor) -> Float[Tensor, "g n s i"]:
        """Rows of each map: of x (n, t, width) the same memory for all three, of x (n, t, 3·width) a third each."""
        shared = x.shape[-1] == self.in_features
        return x[None].expand(3, -1, -1, -1) if shared else self.outputs(x)

    def outputs(self, y: Tensor) -> Float[Tensor, "g n s o"]:
        """A third of y (n, t, 3·width) for each map."""
        return y.reshape(*y.shape[:2], 3, self.out_features).permute(2, 0, 1, 3)

    def matrix(self, tensors: Mapping[str, Tensor]) -> Float[Tensor, "g o j"]:
        """[W_k b_k] of query, key and value."""
        return join_bias(tensors["weight"].reshape(3, self.out_features, self.in_features), tensors)

    def split(self, matrix: Float[Tensor, "*n g o j"]) -> dict[str, Tensor]:
        """The three stacked again."""
        weight, bias = split_bias(matrix, self)
        return {"weight": weight.flatten(-3, -2), **bias}

    def second_moment(self, x: Tensor, dtype: torch.dtype) -> Moments:
        """Multiplied once where the three share their rows."""
        if x.shape[-1] != self.in_features:
            return super().second_moment(x, dtype)
        rows = x.reshape(-1, self.in_features).to(dtype)
        total, second = rows.sum(0), upper_gram(rows)
        return Moments(total.expand(3, -1), second.expand(3, -1, -1), rows.shape[0])


def side_by_side(parts: list[Tensor]) -> Float[Tensor, "n t d"]:
    """(n, t_k, d_k) for each part as one (n, max t_k, Σ d_k), the shorter padded with zeros."""
    length = max(part.shape[1] for part in parts)
    padded = [nn.functional.pad(part, (0, 0, 0, length - part.shape[1])) for part in parts]
    return torch.cat(padded, dim=-1)
