"""nn.Conv1d/2d/3d: s[n,t] = W̄ ā[n,t] with ā the patch under the kernel at output position t (KFC; Ren 2022, sections
3.5, 4.7.2)."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor, nn

from curvlab.layers.layer import Layer, Moments, adapt, join_bias, named, split_bias
from curvlab.layers.patch_moments import patch_second_moment
from curvlab.layers.patches import Geometry, patches
from curvlab.shapes import Float


class ConvolutionLayer(Layer):
    """W̄_g = [W_g b_g] of shape (out/g, in/g·K + 1) for each of g groups; K = kernel positions, the fastest-running
    index.

    Args:
        module: of that kernel, stride and padding.
        weight: the weight and bias, where they are not the module's own.
    """

    def __init__(
        self, module: nn.modules.conv._ConvNd, weight: Tensor | None = None, bias: Tensor | None = None
    ) -> None:
        self.kind = type(module).__name__
        given = weight is not None
        self.parameters = named(weight=weight if given else module.weight, bias=bias if given else module.bias)
        self.geometry = Geometry.of(module)
        self.groups = module.groups
        self.out_features = module.out_channels // module.groups
        self.in_features = module.in_channels // module.groups * prod(module.kernel_size)

    def features(self, x: Tensor) -> Float[Tensor, "g n s i"]:
        """One patch per output position."""
        return patches(x, self.geometry)

    def outputs(self, y: Tensor) -> Float[Tensor, "g n s o"]:
        """One pixel per output position."""
        return y.reshape(y.shape[0], self.groups, self.out_features, -1).permute(1, 0, 3, 2)

    def matrix(self, tensors: Mapping[str, Tensor]) -> Float[Tensor, "g o j"]:
        """Kernels as rows."""
        return join_bias(tensors["weight"].reshape(self.groups, self.out_features, self.in_features), tensors)

    def split(self, matrix: Float[Tensor, "*n g o j"]) -> dict[str, Tensor]:
        """Rows as kernels."""
        weight, bias = split_bias(matrix, self)
        return {"weight": weight.reshape((*matrix.shape[:-3], *self.parameters["weight"].shape)), **bias}

    def second_moment(self, x: Tensor, dtype: torch.dtype) -> Moments:
        """Without unfolding where shifted channel products are cheaper."""
        return Moments(*patch_second_moment(x, self.geometry, dtype))

    def modes(self, role: str) -> tuple[int, ...]:
        """(out, in, kernel positions): three modes (Ren 2022, section 4.7.2)."""
        shape = self.parameters[role].shape
        return tuple(shape) if role == "bias" else (shape[0], shape[1], prod(shape[2:]))


@adapt.register(nn.Conv1d)
@adapt.register(nn.Conv2d)
@adapt.register(nn.Conv3d)
def _(module: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> Layer:
    return ConvolutionLayer(module)
