"""Elementwise affine maps: s_c = γ_c x̂_c + β_c, a grouped map with one group per channel, one output and one feature
each.

The affine part of LayerNorm, RMSNorm, GroupNorm, InstanceNorm and BatchNorm (x̂ is the normalised input), PReLU (x̂ =
min(x, 0)), and parameters that a network multiplies or adds by hand (x̂ is the other operand, or 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curvlab.errors import UnsupportedLayer
from curvlab.layers.layer import Layer, Moments, adapt, join_bias, named, split_bias
from curvlab.shapes import Float


class Elementwise(Layer):
    """s_c = γ_c x̂_c + β_c; `axis` is the first channel axis of x and the parameters' shape says how many axes are
    channels.

    Args:
        kind: what a person calls it.
        scale: γ, or None for a bias alone.
        bias: β, or None.
        axis: first channel axis of the input: 1 for batch and group norms, negative for layer norms.
    """

    out_features = 1

    def __init__(self, kind: str, scale: Tensor | None, bias: Tensor | None, axis: int) -> None:
        self.kind, self.axis = kind, axis
        self.parameters = named(weight=scale, bias=bias)
        shape = next(iter(self.parameters.values())).shape
        self.groups, self.channel_axes = shape.numel(), len(shape)
        self.in_features = 0 if scale is None else 1

    def _channels(self, x: Tensor) -> Float[Tensor, "n s g"]:
        first = self.axis % x.ndim
        axes = tuple(range(first, first + self.channel_axes))
        last = x.movedim(axes, tuple(range(-self.channel_axes, 0)))
        return last.reshape(x.shape[0], -1, self.groups)

    def features(self, x: Tensor) -> Float[Tensor, "g n s i"]:
        """The normalised input of each channel, or nothing (no features) for a bias alone."""
        return self._channels(x).permute(2, 0, 1)[..., None][..., : self.in_features]

    def outputs(self, y: Tensor) -> Float[Tensor, "g n s o"]:
        """One output per channel."""
        return self._channels(y).permute(2, 0, 1)[..., None]

    def matrix(self, tensors: Mapping[str, Tensor]) -> Float[Tensor, "g o j"]:
        """[γ_c β_c] for every channel c."""
        if "weight" not in tensors:
            return tensors["bias"].reshape(self.groups, 1, 1)
        return join_bias(tensors["weight"].reshape(self.groups, 1, 1), tensors)

    def split(self, matrix: Float[Tensor, "*n g o j"]) -> dict[str, Tensor]:
        """γ and β in their own shapes."""
        weight, bias = split_bias(matrix, self)
        if self.in_features == 0:
            return bias
        return {"weight": weight.reshape((*matrix.shape[:-3], *self.parameters["weight"].shape)), **bias}

    def second_moment(self, x: Tensor, dtype: torch.dtype) -> Moments:
        """Σ x̂_c and Σ x̂_c², without moving the channels."""
        rows = self._channels(x).flatten(0, 1).to(dtype)
        total, second = rows.sum(0)[:, None], rows.square().sum(0)[:, None, None]
        return Moments(total[:, : self.in_features], second[:, : self.in_features, : self.in_features], rows.shape[0])

    def output_gradient_moment(self, g: Tensor, dtype: torch.dtype) -> Float[Tensor, "g o o"]:
        """Σ g_c²."""
        return self._channels(g).flatten(0, 1).to(dtype).square().sum(0)[:, None, None]


class Normalised(Elementwise):
    """The affine part of a norm layer: `normalise` repeats the layer without γ and β, in the mode (train or eval) it
    ran in."""

    def __init__(self, kind: str, module: nn.Module, axis: int) -> None:
        self.module = module
        super().__init__(kind, _parameter(module, "weight"), _parameter(module, "bias"), axis)

    def prepare(self, *args: Any, **kwargs: Any) -> Tensor:
        """x̂, from the whole batch (a batch norm in train mode couples the examples)."""
        with torch.no_grad():
            return normalise(self.module, super().prepare(*args, **kwargs))


def normalise(module: nn.Module, x: Tensor) -> Tensor:
    """x̂: what a norm layer multiplies by γ. Running statistics are read, never written."""
    if isinstance(module, nn.LayerNorm):
        return F.layer_norm(x, module.normalized_shape, None, None, module.eps)
    if isinstance(module, nn.RMSNorm):
        return F.rms_norm(x, list(module.normalized_shape), None, module.eps)
    if isinstance(module, nn.GroupNorm):
        return F.group_norm(x, module.num_groups, None, None, module.eps)
    if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.modules.instancenorm._InstanceNorm):
        own = module.training or module.running_mean is None
        if isinstance(module, nn.modules.instancenorm._InstanceNorm):
            if own:
                return F.instance_norm(x, eps=module.eps)
        elif own:
            return F.batch_norm(x, None, None, training=True, eps=module.eps)
        return F.batch_norm(x, module.running_mean, module.running_var, training=False, eps=module.eps)
    raise UnsupportedLayer(f"no normalisation known for {type(module).__name__}")


class PReLULayer(Elementwise):
    """s = max(x, 0) + γ_c min(x, 0): linear in the slopes γ, with features min(x, 0)."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__("PReLU", weight, None, axis=1)

    def prepare(self, *args: Any, **kwargs: Any) -> Tensor:
        """min(x, 0)."""
        return super().prepare(*args, **kwargs).detach().clamp(max=0)

    def _channels(self, x: Tensor) -> Float[Tensor, "n s g"]:
        # One slope for all channels: every element is a position. A 1-D or 2-D input has its channels last.
        if self.groups == 1:
            return x.reshape(x.shape[0], -1, 1)
        return super()._channels(x)


def _parameter(module: nn.Module, name: str) -> nn.Parameter | None:
    value = getattr(module, name, None)
    return value if isinstance(value, nn.Parameter) else None


@adapt.register
def _(module: nn.LayerNorm) -> Layer:
    return Normalised("LayerNorm", module, axis=-len(module.normalized_shape))


@adapt.register
def _(module: nn.RMSNorm) -> Layer:
    return Normalised("RMSNorm", module, axis=-len(module.normalized_shape))


@adapt.register
def _(module: nn.GroupNorm) -> Layer:
    return Normalised("GroupNorm", module, axis=1)


@adapt.register(nn.modules.batchnorm._BatchNorm)
@adapt.register(nn.modules.instancenorm._InstanceNorm)
def _(module: nn.Module) -> Layer:
    return Normalised(type(module).__name__, module, axis=1)


@adapt.register
def _(module: nn.PReLU) -> Layer:
    return PReLULayer(module.weight)
