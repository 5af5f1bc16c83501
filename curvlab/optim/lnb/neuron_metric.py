"""M = 1/n JᵀJ, J = ∂s/∂θ of a neuron's n rows of outputs s = W̄ā: the metric of function space (LNB, eq. 10, 11).

M is block-diagonal, every output's row of W̄ has the same block E[āāᵀ]: MW̄ = W̄ E[āāᵀ]. It is known by two routes,
which are the same matrix: the recorded inputs, through the layer and back, or the sum Σ āāᵀ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from curvlab.capture.sample import Call
from curvlab.layers.layer import Layer
from curvlab.operators.operator import Operator
from curvlab.operators.product import along
from curvlab.optim.lnb.neuron_map import neuron_map, neuron_pullback
from curvlab.shapes import Float


@dataclass(frozen=True, eq=False)
class NeuronMetric(Operator):
    """M of a layer over all batches of a step; `product` multiplies W̄ `[g, o, j]` with it.

    Attributes:
        layer: whose matrix W̄ it acts on.
        rows: n, examples times positions (lnb footnote 3: for a convolution its output pixels).
        inputs: the recorded calls, on the first route.
        second: Σ āāᵀ `[g, j, j]` of the batches on the second, None if there are none.
    """

    layer: Layer
    rows: int
    inputs: tuple[Call, ...] = ()
    second: Float[Tensor, "g j j"] | None = None

    @property
    def size(self) -> int:
        """g·o·j: entries of W̄."""
        return self.layer.groups * self.layer.out_features * (self.layer.in_features + self.layer.biased)

    def joined(self, other: NeuronMetric) -> NeuronMetric:
        """The metric of both batches together."""
        seconds = [one.second for one in (self, other) if one.second is not None]
        second = seconds[0] + seconds[1] if len(seconds) == 2 else next(iter(seconds), None)
        return replace(self, rows=self.rows + other.rows, inputs=self.inputs + other.inputs, second=second)

    def matrix(self) -> Float[Tensor, "g j j"]:
        """E[āāᵀ] of every group.

        Raises:
            ValueError: some of it is known by its inputs alone.
        """
        if self.second is None or self.inputs:
            raise ValueError("the metric has not been written out")
        return self.second / self.rows


@along.register
def _(operator: NeuronMetric, x: Float[Tensor, "l d r"]) -> Float[Tensor, "l d r"]:
    layer = operator.layer
    vectors = x.movedim(1, 2).reshape(-1, layer.groups, layer.out_features, layer.in_features + layer.biased)
    products = torch.stack([pushed(operator, w).back() for w in vectors])
    return products.reshape(x.shape[0], x.shape[2], x.shape[1]).movedim(2, 1)


@dataclass(frozen=True)
class Pushed:
    """Half of a product with M.

    Attributes:
        squares: E‖s‖² of every row of w over its outputs, wMwᵀ's diagonal `[g, o]`.
        back: the other half, wM.
    """

    squares: Float[Tensor, "g o"]
    back: Callable[[], Float[Tensor, "g o j"]]


def pushed(metric: NeuronMetric, w: Float[Tensor, "g o j"]) -> Pushed:
    """w through the layer at all inputs, which tells its length in function space; and back if that is asked for."""
    squares = w.new_zeros(())
    parts: list[Callable[[], Tensor]] = []
    if metric.second is not None:
        part = w @ metric.second
        squares = torch.linalg.vecdot(w, part)
        parts.append(lambda: part)
    for call in metric.inputs:
        assert call.x is not None
        tensors = metric.layer.split(w)
        outputs = neuron_map(call.layer, call.x, tensors)
        squares = squares + outputs.square().sum((1, 2))
        parts.append(partial(neuron_pullback, call.layer, call.x, outputs, tensors))

    def back() -> Tensor:
        total = parts[0]()
        for part in parts[1:]:
            total = total + part()
        return total / metric.rows

    return Pushed(squares / metric.rows, back)
