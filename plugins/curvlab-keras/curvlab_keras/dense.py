"""Dense: s = xW + b with W stored (in, out)."""

from __future__ import annotations

import keras

from curvlab.layers.layer import Unrolled, adapt
from curvlab.layers.linear import TransposedLinearLayer
from curvlab_keras.preactivation import Preactivation
from curvlab_keras.variables import check, value


@adapt.register
def _(layer: keras.layers.Dense) -> Unrolled:
    check(layer, keras.layers.Dense)
    return Preactivation(layer, "kernel", TransposedLinearLayer(layer.kernel.value, value(layer.bias), "Dense"))
