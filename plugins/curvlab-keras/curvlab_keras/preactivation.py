"""Preactivation: a layer y = f(W̄ ā) that applies its activation f itself, shown to the capture before f."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from curvlab.layers.layer import Layer, Tap, Unrolled
from curvlab_keras.variables import first


class Preactivation(Unrolled):
    """Keras' own computation, with the tap put between the affine map and the activation.

    Args:
        layer: a Keras layer with an attribute `activation`.
        part: the map's name: that of its kernel.
        map: the affine map.
    """

    def __init__(self, layer: Any, part: str, map: Layer) -> None:
        self.layer, self.part, self.layers = layer, part, {part: map}

    def forward(self, tap: Tap, *args: Any, **kwargs: Any) -> Any:
        """What the layer returns."""
        own, x = self.layer.activation, first(args, kwargs)

        def shown(s: Tensor) -> Any:
            y = tap(self.part, x, s)
            return y if own is None else own(y)

        # Not by setattr, with which Keras would take the function for a part of the layer.
        before = vars(self.layer).get("activation", shown)
        vars(self.layer)["activation"] = shown
        try:
            return type(self.layer).forward(self.layer, *args, **kwargs)
        finally:
            if before is shown:
                del vars(self.layer)["activation"]
            else:
                vars(self.layer)["activation"] = before
