"""What the affine map of a module is given, from the arguments that the module was called with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from curvlab.errors import CurvlabError, UnsupportedLayer
from curvlab.layers.layer import Layer


def module_input(layer: Layer, args: Any, kwargs: Mapping[str, Any], output: Any, sound: set[Layer]) -> Tensor:
    """The prepared input, without its graph.

    Args:
        layer: the map.
        args: positional arguments of the module.
        kwargs: keyword arguments.
        output: what it returned.
        sound: layers that are known to have entries; this one is added.

    Raises:
        UnsupportedLayer: the module was called in a way that its adapter cannot read.
    """
    if not isinstance(output, Tensor):
        raise UnsupportedLayer(f"{layer.kind} returned a {type(output).__name__}", "its output must be a tensor")
    if layer not in sound:
        if any(p.numel() == 0 for p in layer.parameters.values()):
            raise UnsupportedLayer(f"{layer.kind} has a parameter without entries", "there is nothing to analyse")
        sound.add(layer)
    try:
        return layer.prepare(*args, **kwargs).detach()
    except (CurvlabError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        why = f"its adapter cannot read what the module was called with: {type(error).__name__}: {error}"
        raise UnsupportedLayer(f"{layer.kind} could not be recorded", why) from error
