"""LSTM, GRU, SimpleRNN, and RNN over their cells: the kernels over time steps, gate by gate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import keras
import torch
from keras import ops
from torch import Tensor

from curvlab.errors import UnsupportedLayer
from curvlab.layers.elementwise import Elementwise
from curvlab.layers.layer import Layer, Moments, Tap, Unrolled, adapt, join_bias, named, split_bias
from curvlab.linalg.gram import upper_gram
from curvlab.shapes import Float
from curvlab_keras.variables import check, value


class Gates(Layer):
    """s_k = W̄_k ā for the gates k side by side in one kernel (in, gates·units), fed by the same rows.

    Args:
        kind: what a person calls the layer.
        kernel: `(in, gates·units)`.
        bias: `(gates·units,)`, or None.
        gates: their number: 4 of an LSTM (i, f, c, o), 3 of a GRU (z, r, h).
    """

    by_rows = False

    def __init__(self, kind: str, kernel: Tensor, bias: Tensor | None, gates: int) -> None:
        self.kind, self.groups = kind, gates
        self.parameters = named(weight=kernel, bias=bias)
        self.in_features, self.out_features = kernel.shape[0], kernel.shape[1] // gates

    def features(self, x: Tensor) -> Float[Tensor, "g n s i"]:
        """Rows x[n, t], the same memory for every gate."""
        return x.reshape(1, x.shape[0], -1, self.in_features).expand(self.groups, -1, -1, -1)

    def outputs(self, y: Tensor) -> Float[Tensor, "g n s o"]:
        """Rows of each gate's share of y[n, t]."""
        return y.reshape(y.shape[0], -1, self.groups, self.out_features).permute(2, 0, 1, 3)

    def matrix(self, tensors: Mapping[str, Tensor]) -> Float[Tensor, "g o j"]:
        """[W_k b_k] of every gate."""
        return join_bias(tensors["weight"].mT.reshape(self.groups, self.out_features, self.in_features), tensors)

    def split(self, matrix: Float[Tensor, "*n g o j"]) -> dict[str, Tensor]:
        """The gates side by side again."""
        weight, bias = split_bias(matrix, self)
        return {"weight": weight.flatten(-3, -2).mT, **bias}

    def second_moment(self, x: Tensor, dtype: torch.dtype) -> Moments:
        """Multiplied once for all gates."""
        rows = x.reshape(-1, self.in_features).to(dtype)
        total, second = rows.sum(0), upper_gram(rows)
        return Moments(total.expand(self.groups, -1), second.expand(self.groups, -1, -1), rows.shape[0])


class Step(ABC):
    """One time step of a cell, written out: the maps "kernel" and "recurrent_kernel", and a GRU's two biases, "bias".

    Args:
        cell: of Keras.
        kind: what a person calls the layer.
        gates: their number.
        prefix: of the maps' names, for one of several cells.
    """

    def __init__(self, cell: Any, kind: str, gates: int, prefix: str) -> None:
        self.cell, self.prefix = cell, prefix
        # A GRU that resets after the product has one bias for the input and one for the state, in one variable (2, 3h).
        self.pair = cell.bias is not None and cell.bias.value.ndim == 2
        self.layers: dict[str, Layer] = {
            f"{prefix}kernel": Gates(kind, cell.kernel.value, None if self.pair else value(cell.bias), gates),
            f"{prefix}recurrent_kernel": Gates(kind, cell.recurrent_kernel.value, None, gates),
        }
        if self.pair:
            self.layers[f"{prefix}bias"] = Elementwise(kind, None, cell.bias.value, axis=1)

    def run(self, tap: Tap, x: Tensor, states: list[Tensor]) -> list[Tensor]:
        """The new states, of which the first is the output h."""
        cell, h = self.cell, states[0]
        # Keras' own operations, which choose the precision of a product as the layer does.
        a, b = ops.matmul(x, cell.kernel), ops.matmul(h, cell.recurrent_kernel)
        if cell.bias is not None and not self.pair:
            a = ops.add(a, cell.bias)
        a, b = tap(f"{self.prefix}kernel", x, a), tap(f"{self.prefix}recurrent_kernel", h, b)
        if self.pair:
            both = torch.stack([a, b], dim=1)
            a, b = tap(f"{self.prefix}bias", both.detach(), ops.add(both, cell.bias)).unbind(1)
        return self.advance(a, b, states)

    @abstractmethod
    def advance(self, a: Tensor, b: Tensor, states: list[Tensor]) -> list[Tensor]:
        """The new states from the products a with the input and b with the state."""


class LSTMStep(Step):
    """c' = f c + i g, h' = o act(c')."""

    def advance(self, a: Tensor, b: Tensor, states: list[Tensor]) -> list[Tensor]:
        """h' and c'."""
        i, f, g, o = (a + b).chunk(4, dim=1)
        gate, activation = self.cell.recurrent_activation, self.cell.activation
        c = gate(f) * states[1] + gate(i) * activation(g)
        return [gate(o) * activation(c), c]


class GRUStep(Step):
    """h' = z h + (1 − z) act(a_h + r b_h)."""

    def advance(self, a: Tensor, b: Tensor, states: list[Tensor]) -> list[Tensor]:
        """h'."""
        (az, ar, ah), (bz, br, bh) = a.chunk(3, dim=1), b.chunk(3, dim=1)
        gate, activation = self.cell.recurrent_activation, self.cell.activation
        z = gate(az + bz)
        return [z * states[0] + (1 - z) * activation(ah + gate(ar + br) * bh)]


class RNNStep(Step):
    """h' = act(a + b)."""

    def advance(self, a: Tensor, b: Tensor, states: list[Tensor]) -> list[Tensor]:
        """h'."""
        return [self.cell.activation(a + b)]


def step_of(cell: Any, prefix: str = "") -> Step:
    """A cell of Keras, written out.

    Raises:
        UnsupportedLayer: a cell of another type, or a GRU whose recurrent kernel sees two inputs.
    """
    for base, step, kind, gates in (
        (keras.layers.LSTMCell, LSTMStep, "LSTM", 4),
        (keras.layers.GRUCell, GRUStep, "GRU", 3),
        (keras.layers.SimpleRNNCell, RNNStep, "SimpleRNN", 1),
    ):
        if isinstance(cell, base):
            check(cell, base)
            if kind == "GRU" and not cell.reset_after:
                raise UnsupportedLayer(
                    "GRU with reset_after=False", "its recurrent kernel is applied to two inputs, h and r h"
                )
            return step(cell, kind, gates, prefix)
    raise UnsupportedLayer(f"no adapter for the recurrent cell {type(cell).__name__}", "what it computes is not known")


class Sequence(Unrolled):
    """The layer's loop over time in place of Keras' own, which runs the first step twice, or a fused kernel.

    What stands around the loop (initial states, states kept from call to call, what is returned) stays Keras'.
    """

    def __init__(self, layer: Any, base: type) -> None:
        check(layer, base)
        self.layer = layer
        if isinstance(layer.cell, keras.layers.StackedRNNCells):
            self.steps = [step_of(cell, f"{cell.name}.") for cell in layer.cell.cells]
        else:
            self.steps = [step_of(layer.cell)]
        self.layers = {name: map for step in self.steps for name, map in step.layers.items()}

    def forward(self, tap: Tap, *args: Any, **kwargs: Any) -> Any:
        """What the layer returns."""
        # Here and not in the loop: what is raised inside of a layer, Keras turns into an error of its own.
        if kwargs.get("training") and any(step.cell.dropout or step.cell.recurrent_dropout for step in self.steps):
            raise UnsupportedLayer(
                f"{type(self.layer).__name__} with dropout in training mode", "its masks differ from gate to gate"
            )

        def loop(sequences: Tensor, initial_state: Any, mask: Any, training: bool | None = False) -> Any:
            return self._loop(tap, sequences, list(initial_state), mask)

        vars(self.layer)["inner_loop"] = loop
        try:
            return type(self.layer).forward(self.layer, *args, **kwargs)
        finally:
            del vars(self.layer)["inner_loop"]

    def _loop(self, tap: Tap, x: Tensor, initial: list[Any], mask: Any) -> Any:
        """(last output, all outputs, last states): a step that the mask hides keeps states and output as they were."""
        nested = [list(s) if isinstance(s, list | tuple) else [s] for s in initial]
        states = nested if len(self.steps) > 1 else [[part for own in nested for part in own]]
        mask = mask[0] if isinstance(mask, list | tuple) else mask
        times = range(x.shape[1])
        outputs: list[Tensor] = []
        for t in reversed(times) if self.layer.go_backwards else times:
            y, new = x[:, t], []
            for step, own in zip(self.steps, states, strict=True):
                new.append(step.run(tap, y, own))
                y = new[-1][0]
            if mask is not None:
                seen = mask[:, t, None].bool()
                new = [
                    [torch.where(seen, n, o) for n, o in zip(ns, os, strict=True)]
                    for ns, os in zip(new, states, strict=True)
                ]
                before = torch.zeros_like(y) if not outputs or self.layer.zero_output_for_mask else outputs[-1]
                y = torch.where(seen, y, before)
            states = new
            outputs.append(y)
        last = (
            [s if isinstance(s0, list | tuple) else s[0] for s, s0 in zip(states, initial, strict=True)]
            if len(self.steps) > 1
            else states[0]
        )
        return outputs[-1], torch.stack(outputs, dim=1), last


@adapt.register
def _(layer: keras.layers.LSTM) -> Unrolled:
    return Sequence(layer, keras.layers.LSTM)


@adapt.register
def _(layer: keras.layers.GRU) -> Unrolled:
    return Sequence(layer, keras.layers.GRU)


@adapt.register
def _(layer: keras.layers.SimpleRNN) -> Unrolled:
    return Sequence(layer, keras.layers.SimpleRNN)


@adapt.register
def _(layer: keras.layers.RNN) -> Unrolled:
    return Sequence(layer, keras.layers.RNN)
