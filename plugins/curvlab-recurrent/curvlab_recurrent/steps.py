"""One time step of each cell, elementwise, from its two affine maps a = W̄_ih x̄ and b = W̄_hh h̄ on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

State = tuple[Tensor, ...]
"""(h,), or (h, c) of an LSTM."""


@dataclass(frozen=True)
class Step:
    """state[t] = advance(a, b, state[t−1]) of a cell with so many gates, whose state has so many parts."""

    gates: int
    parts: int
    advance: Callable[[Tensor, Tensor, State], State]

    def pack(self, state: State) -> Tensor | State:
        """The state as torch's modules take and return it: h alone where there is nothing else."""
        return state if self.parts > 1 else state[0]


def unpack(hx: Tensor | State) -> State:
    """The inverse of `Step.pack`."""
    return (hx,) if isinstance(hx, Tensor) else tuple(hx)


def _lstm(a: Tensor, b: Tensor, state: State) -> State:
    """c' = σ(f) c + σ(i) tanh(g), h' = σ(o) tanh(c') with (i, f, g, o) = a + b (Gers et al. 2000, in torch's order)."""
    i, f, g, o = (a + b).chunk(4, dim=-1)
    c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def _gru(a: Tensor, b: Tensor, state: State) -> State:
    """h' = n + z(h − n), n = tanh(a_n + r b_n), (r, z) = σ(a + b) (Cho et al. 2014; torch: r after the bias)."""
    (h,) = state
    split = 2 * h.shape[-1]
    r, z = (a[..., :split] + b[..., :split]).sigmoid().chunk(2, dim=-1)
    n = (a[..., split:] + r * b[..., split:]).tanh()
    return (n + z * (h - n),)


def _tanh(a: Tensor, b: Tensor, _: State) -> State:
    """h' = tanh(a + b) (Elman 1990)."""
    return ((a + b).tanh(),)


def _relu(a: Tensor, b: Tensor, _: State) -> State:
    """h' = max(a + b, 0)."""
    return ((a + b).relu(),)


LSTM = Step(4, 2, _lstm)
GRU = Step(3, 1, _gru)
RNN = {"tanh": Step(1, 1, _tanh), "relu": Step(1, 1, _relu)}
