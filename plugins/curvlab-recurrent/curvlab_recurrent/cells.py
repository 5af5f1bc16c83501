"""nn.LSTMCell, nn.GRUCell, nn.RNNCell: one time step; the network's own loop over time makes the positions."""

from __future__ import annotations

from torch import Tensor, nn

from curvlab.layers.layer import Tap, Unrolled, adapt
from curvlab_recurrent.gates import Gates
from curvlab_recurrent.maps import check_forward, parameters_of, show
from curvlab_recurrent.steps import GRU, LSTM, RNN, State, Step, unpack


class Cell(Unrolled):
    """state' = step(W̄_ih x̄, W̄_hh h̄, state); the maps are "ih" and "hh"."""

    def __init__(self, module: nn.RNNCellBase, base: type[nn.RNNCellBase], step: Step) -> None:
        check_forward(module, base)
        self.step, self.hidden = step, module.hidden_size
        self.layers = {n: Gates(base.__name__, *parameters_of(module, n), step.gates) for n in ("ih", "hh")}

    def forward(self, tap: Tap, input: Tensor, hx: Tensor | State | None = None) -> Tensor | State:
        """h', or (h', c') of an LSTM cell.

        Args:
            tap: sees both maps.
            input: x `(N, in)` or `(in,)`.
            hx: h, or (h, c) of an LSTM cell, `(N, hidden)` or `(hidden,)`; None is zeros.
        """
        single = input.ndim == 1
        x = input[None] if single else input
        if hx is None:
            state: State = (x.new_zeros(x.shape[0], self.hidden),) * self.step.parts
        else:
            state = tuple(part[None] if single else part for part in unpack(hx))
        state = self.step.advance(show(tap, self.layers, "ih", x), show(tap, self.layers, "hh", state[0]), state)
        return self.step.pack(tuple(part[0] for part in state) if single else state)


@adapt.register
def _(module: nn.LSTMCell) -> Unrolled:
    return Cell(module, nn.LSTMCell, LSTM)


@adapt.register
def _(module: nn.GRUCell) -> Unrolled:
    return Cell(module, nn.GRUCell, GRU)


@adapt.register
def _(module: nn.RNNCell) -> Unrolled:
    return Cell(module, nn.RNNCell, RNN[module.nonlinearity])
