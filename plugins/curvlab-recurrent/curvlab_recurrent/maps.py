"""The affine maps of a torch module: their parameters found by name, shown to the capture where they are applied.

torch calls the parameters of the map "ih_l0" weight_ih_l0 and bias_ih_l0.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from curvlab.errors import UnsupportedLayer
from curvlab.layers.layer import Layer, Tap


def parameters_of(module: nn.Module, name: str) -> tuple[nn.Parameter, nn.Parameter | None]:
    """Weight and bias of the map `name`.

    Raises:
        UnsupportedLayer: one of them is no parameter but computed from some (weight norm, weight drop).
    """
    weight, bias = getattr(module, f"weight_{name}"), getattr(module, f"bias_{name}", None)
    if not isinstance(weight, nn.Parameter) or not isinstance(bias, nn.Parameter | None):
        raise UnsupportedLayer(
            f"the weight or bias {name!r} of a {type(module).__name__} is computed from other parameters",
            "the gradients of those are not the map's",
        )
    return weight, bias


def check_forward(module: nn.Module, base: type[nn.Module]) -> None:
    """Raise UnsupportedLayer for a subclass of `base` with its own forward, which ours would replace."""
    if type(module).forward is not base.forward:
        raise UnsupportedLayer(
            f"{type(module).__name__} is a {base.__name__} with a forward of its own",
            "what it computes is not known",
            f"let it hold a {base.__name__} instead of being one, or register an adapter for it",
        )


def show(tap: Tap, layers: Mapping[str, Layer], name: str, x: Tensor) -> Tensor:
    """y = tap(name, x, W x + b)."""
    own = layers[name].parameters
    return tap(name, x, F.linear(x, own["weight"], own.get("bias")))
