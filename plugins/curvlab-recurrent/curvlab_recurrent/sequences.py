"""nn.LSTM, nn.GRU, nn.RNN: their fused kernels written out, so that each layer's and direction's maps are seen.

A map "ih_l0" is applied to all time steps in one call, "hh_l0" (and an LSTM's projection "hr_l0") once per time step.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from curvlab.errors import UnsupportedLayer
from curvlab.layers.layer import Layer, Tap, Unrolled, adapt
from curvlab.layers.linear import LinearLayer
from curvlab_recurrent.gates import Gates
from curvlab_recurrent.maps import check_forward, parameters_of, show
from curvlab_recurrent.steps import GRU, LSTM, RNN, State, Step, unpack


class Sequence(Unrolled):
    """state[t] = step(W̄_ih x̄[t], W̄_hh h̄[t−1], state[t−1]) for each layer and direction; where projected, h ← W_hr
    h.

    Dropout between layers consumes the generator as torch's CPU kernel does: the same state gives the same masks. An
    accelerator's kernel draws its own; there only the distribution is the same.
    """

    def __init__(self, module: nn.RNNBase, base: type[nn.RNNBase], step: Step) -> None:
        check_forward(module, base)
        self.module, self.kind, self.step = module, base.__name__, step
        self.directions = ("", "_reverse") if module.bidirectional else ("",)
        self.layers: dict[str, Layer] = {}
        for suffix in (f"l{k}{direction}" for k in range(module.num_layers) for direction in self.directions):
            for name in (f"ih_{suffix}", f"hh_{suffix}"):
                self.layers[name] = Gates(self.kind, *parameters_of(module, name), step.gates)
            if module.proj_size:
                name = f"hr_{suffix}"
                self.layers[name] = LinearLayer(*parameters_of(module, name), self.kind)

    def forward(
        self, tap: Tap, input: Tensor | PackedSequence, hx: Tensor | State | None = None
    ) -> tuple[Tensor, Tensor | State]:
        """(outputs of the last layer, last states of all layers), as the module returns them.

        Args:
            tap: sees every map, examples first.
            input: x `(T, N, in)`, `(N, T, in)` with batch_first, or `(T, in)`.
            hx: h, or (h, c) of an LSTM, `(layers·directions, N, hidden)`, without N beside `(T, in)`; None is zeros.

        Raises:
            UnsupportedLayer: `input` is a PackedSequence.
        """
        module = self.module
        if isinstance(input, PackedSequence):
            raise UnsupportedLayer(
                f"{self.kind} was called with a PackedSequence",
                "its examples differ in their number of positions, and the statistics know one number for all",
                "give it padded sequences, or sequences of one length",
            )
        single, batch_axis = input.ndim == 2, 0 if module.batch_first else 1
        x = input.unsqueeze(batch_axis) if single else input
        states = self._states(hx, x, x.shape[batch_axis], single)
        module.check_forward_args(x, self.step.pack(states), None)  # type: ignore[arg-type]
        x = x.transpose(0, 1) if module.batch_first else x
        last: list[State] = []
        for k in range(module.num_layers):
            if k > 0:
                x = F.dropout(x, module.dropout, module.training)
            outputs = []
            for direction in self.directions:
                output, state = self._run(tap, f"l{k}{direction}", x, tuple(part[len(last)] for part in states))
                outputs.append(output)
                last.append(state)
            x = torch.cat(outputs, dim=-1)
        final = tuple(torch.stack(parts) for parts in zip(*last, strict=True))
        x = x.transpose(0, 1) if module.batch_first else x
        if single:
            x, final = x.squeeze(batch_axis), tuple(part.squeeze(1) for part in final)
        return x, self.step.pack(final)

    def _states(self, hx: Tensor | State | None, x: Tensor, examples: int, single: bool) -> State:
        if hx is not None:
            return tuple(part.unsqueeze(1) if single else part for part in unpack(hx))
        count = self.module.num_layers * len(self.directions)
        sizes = (self.module.proj_size or self.module.hidden_size, self.module.hidden_size)
        return tuple(x.new_zeros(count, examples, size) for size in sizes[: self.step.parts])

    def _run(self, tap: Tap, suffix: str, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One layer in one direction: x `(T, N, in)` to h `(T, N, hidden)` in the order of time, and the last state."""
        # An axis of length 1 after the examples: nobody can take the time steps for the examples when both are as many.
        steps = show(tap, self.layers, f"ih_{suffix}", x.transpose(0, 1)[:, None])[:, 0].unbind(1)
        backward = suffix.endswith("_reverse")
        outputs = []
        for a in reversed(steps) if backward else steps:
            state = self.step.advance(a, show(tap, self.layers, f"hh_{suffix}", state[0]), state)
            if self.module.proj_size:
                state = (show(tap, self.layers, f"hr_{suffix}", state[0]), *state[1:])
            outputs.append(state[0])
        return torch.stack(outputs[::-1] if backward else outputs), state


@adapt.register
def _(module: nn.LSTM) -> Unrolled:
    return Sequence(module, nn.LSTM, LSTM)


@adapt.register
def _(module: nn.GRU) -> Unrolled:
    return Sequence(module, nn.GRU, GRU)


@adapt.register
def _(module: nn.RNN) -> Unrolled:
    return Sequence(module, nn.RNN, RNN[module.nonlinearity])
