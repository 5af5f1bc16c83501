"""BatchNormalization and LayerNormalization: s_c = γ_c x̂_c + β_c on any axes."""

from __future__ import annotations

from typing import Any

import keras
import torch
from torch import Tensor

from curvlab.errors import UnsupportedLayer
from curvlab.layers.elementwise import Elementwise
from curvlab.layers.layer import Layer, adapt
from curvlab_keras.variables import check, value


class BatchNorm(Elementwise):
    """x̂ by the moving statistics, or by the batch's where the layer was called with training=True."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        super().__init__("BatchNormalization", value(layer.gamma), value(layer.beta), layer.axis)

    def prepare(self, *args: Any, **kwargs: Any) -> Tensor:
        """x̂, from the whole batch."""
        layer, x = self.layer, super().prepare(*args, **kwargs).detach()
        training = bool(kwargs.get("training", args[1] if len(args) > 1 else False)) and layer.trainable
        if training and (layer.renorm or kwargs.get("mask") is not None):
            raise UnsupportedLayer("BatchNormalization in training mode with a mask or renorm", "its x̂ is another")
        shape = [1] * x.ndim
        shape[layer.axis] = -1
        if training:
            axes = [a for a in range(x.ndim) if a != layer.axis % x.ndim]
            mean, variance = x.mean(axes), x.var(axes, correction=0)
        else:
            mean, variance = layer.moving_mean.value.detach(), layer.moving_variance.value.detach()
        return (x - mean.reshape(shape)) * torch.rsqrt(variance.reshape(shape) + layer.epsilon)


class LayerNorm(Elementwise):
    """x̂ over the layer's axes, which have γ and β entry for entry."""

    def __init__(self, layer: Any) -> None:
        self.layer, axes = layer, list(layer.axis)
        if [axis - axes[0] for axis in axes] != list(range(len(axes))):
            raise UnsupportedLayer(f"LayerNormalization over the axes {axes}", "they are not side by side")
        super().__init__("LayerNormalization", value(layer.gamma), value(layer.beta), axes[0])

    def prepare(self, *args: Any, **kwargs: Any) -> Tensor:
        """x̂ of each example."""
        x = super().prepare(*args, **kwargs).detach()
        variance, mean = torch.var_mean(x, self.layer.axis, correction=0, keepdim=True)
        return (x - mean) * torch.rsqrt(variance + self.layer.epsilon)


@adapt.register
def _(layer: keras.layers.BatchNormalization) -> Layer:
    _check(layer, keras.layers.BatchNormalization)
    return BatchNorm(layer)


@adapt.register
def _(layer: keras.layers.LayerNormalization) -> Layer:
    _check(layer, keras.layers.LayerNormalization)
    if layer.rms_scaling:
        raise UnsupportedLayer("LayerNormalization with rms_scaling", "Keras scales by the variance there")
    return LayerNorm(layer)


def _check(layer: Any, base: type) -> None:
    check(layer, base)
    if layer.gamma is None and layer.beta is None:
        raise UnsupportedLayer(f"{base.__name__} without scale and centre", "it has nothing that is trained")
