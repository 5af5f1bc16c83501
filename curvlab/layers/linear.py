"""nn.Linear: s = W x + b for every row of x; all axes between the first and the last are positions."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from curvlab.layers.layer import Layer, adapt, join_bias, named, split_bias
from curvlab.shapes import Float


class LinearLayer(Layer):
    """s = W̄ ā with W̄ = [W b] of shape (out, in + 1)."""

    rowwise = True

    def __init__(self, weight: Tensor, bias: Tensor | None, kind: str = "Linear") -> None:
        self.kind = kind
        self.parameters = named(weight=weight, bias=bias)
        self.out_features, self.in_features = weight.shape

    def features(self, x: Tensor) -> Float[Tensor, "g n s i"]:
        """Rows x[n, t]; a single vector is one example."""
        return _rows(x)

    def outputs(self, y: Tensor) -> Float[Tensor, "g n s o"]:
        """Rows y[n, t]."""
        return _rows(y)

    def matrix(self, tensors: Mapping[str, Tensor]) -> Float[Tensor, "g o j"]:
        """[W b]."""
        return join_bias(tensors["weight"][None], tensors)

    def split(self, matrix: Float[Tensor, "*n g o j"]) -> dict[str, Tensor]:
        """W and b."""
        weight, bias = split_bias(matrix, self)
        return {"weight": weight.squeeze(-3), **bias}


class TransposedLinearLayer(LinearLayer):
    """s = xW: a matrix stored as (in, out), as in `x @ W` or GPT-2's Conv1D."""

    by_rows = False

    def __init__(self, weight: Tensor, bias: Tensor | None, kind: str = "Linear (in, out)") -> None:
        super().__init__(weight, bias, kind)
        self.in_features, self.out_features = weight.shape

    def matrix(self, tensors: Mapping[str, Tensor]) -> Float[Tensor, "g o j"]:
        """[Wᵀ b]."""
        return join_bias(tensors["weight"].mT[None], tensors)

    def split(self, matrix: Float[Tensor, "*n g o j"]) -> dict[str, Tensor]:
        """W and b."""
        weight, bias = split_bias(matrix, self)
        return {"weight": weight.squeeze(-3).mT, **bias}


def _rows(x: Tensor) -> Float[Tensor, "g n s d"]:
    return x.reshape(1, x.shape[0] if x.ndim > 1 else 1, -1, x.shape[-1])


@adapt.register
def _(module: nn.Linear) -> Layer:
    return LinearLayer(module.weight, module.bias)
