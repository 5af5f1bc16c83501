"""nn.ConvTranspose1d/2d/3d: a convolution over the input spread by the stride; the weight is stored (in, out/groups,
kernel)."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from torch import Tensor, nn

from curvlab.errors import UnsupportedLayer
from curvlab.layers.convolution import ConvolutionLayer
from curvlab.layers.layer import Layer, adapt, join_bias, split_bias
from curvlab.shapes import Float


class TransposedConvolutionLayer(ConvolutionLayer):
    """W̄_g of shape (out/g, in/g·K + 1), rearranged from the stored (in, out/g, K)."""

    by_rows = False

    def prepare(self, *args: Any, **kwargs: Any) -> Tensor:
        """The input; a call with `output_size` is refused, since the module's own padding does not hold then."""
        if len(args) > 1 or kwargs.get("output_size") is not None:
            raise UnsupportedLayer(f"{self.kind} was called with output_size", "its geometry differs from call to call")
        return super().prepare(*args, **kwargs)

    def matrix(self, tensors: Mapping[str, Tensor]) -> Float[Tensor, "g o j"]:
        """(in, out/g, K) → (g, out/g, in/g·K)."""
        split = tensors["weight"].reshape(self.groups, -1, self.out_features, prod(self.geometry.kernel))
        return join_bias(split.movedim(2, 1).reshape(self.groups, self.out_features, self.in_features), tensors)

    def split(self, matrix: Float[Tensor, "*n g o j"]) -> dict[str, Tensor]:
        """(g, out/g, in/g·K) → (in, out/g, *kernel)."""
        weight, bias = split_bias(matrix, self)
        lead = matrix.shape[:-3]
        parts = weight.reshape(*lead, self.groups, self.out_features, -1, prod(self.geometry.kernel)).movedim(-2, -3)
        return {"weight": parts.reshape(*lead, *self.parameters["weight"].shape), **bias}


@adapt.register(nn.ConvTranspose1d)
@adapt.register(nn.ConvTranspose2d)
@adapt.register(nn.ConvTranspose3d)
def _(module: Any) -> Layer:
    return TransposedConvolutionLayer(module)
