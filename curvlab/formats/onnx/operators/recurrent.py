"""RNN, GRU and LSTM step by step; those that torch has a module for become one (see `layers`).

X is `[steps, examples, in]`, W `[directions, gates · hidden, in]`, R `[directions, gates · hidden, hidden]`, B both
biases side by side. Gates are ordered i, o, f, c (LSTM) and z, r, h (GRU).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from curvlab.formats.onnx.operators.activations import hard_sigmoid
from curvlab.formats.onnx.operators.table import Result, UnsupportedOperator, operator

Activation = Callable[[Tensor], Tensor]
State = tuple[Tensor, ...]
Step = Callable[[Tensor, State], State]

# name -> (default alpha, default beta, function)
_ACTIVATIONS: dict[str, tuple[float, float, Callable[[Tensor, float, float], Tensor]]] = {
    "sigmoid": (0, 0, lambda x, a, b: torch.sigmoid(x)),
    "tanh": (0, 0, lambda x, a, b: torch.tanh(x)),
    "relu": (0, 0, lambda x, a, b: torch.relu(x)),
    "softsign": (0, 0, lambda x, a, b: F.softsign(x)),
    "softplus": (0, 0, lambda x, a, b: F.softplus(x)),
    "affine": (1, 0, lambda x, a, b: a * x + b),
    "scaledtanh": (1, 1, lambda x, a, b: a * torch.tanh(b * x)),
    "leakyrelu": (0.01, 0, lambda x, a, b: F.leaky_relu(x, a)),
    "thresholdedrelu": (1, 0, lambda x, a, b: torch.where(x > a, x, torch.zeros_like(x))),
    "hardsigmoid": (0.2, 0.5, lambda x, a, b: hard_sigmoid(x, alpha=a, beta=b)),
    "elu": (1, 0, lambda x, a, b: F.elu(x, a)),
}


def _activation(name: str, alpha: float | None, beta: float | None) -> Activation:
    if name.lower() not in _ACTIVATIONS:
        raise UnsupportedOperator(f"a recurrent layer with the activation {name!r}", "not supported")
    a, b, function = _ACTIVATIONS[name.lower()]
    a, b = (a if alpha is None else alpha), (b if beta is None else beta)
    return lambda x: function(x, a, b)


def _activations(
    names: Sequence[str] | None,
    alpha: Sequence[float] | None,
    beta: Sequence[float] | None,
    standard: Sequence[str],
    directions: int,
    clip: float | None,
) -> list[list[Activation]]:
    """The functions of each direction, their arguments kept within ± clip."""
    chosen = list(names or list(standard) * directions)
    made = [
        _activation(name, alpha[i] if alpha and i < len(alpha) else None, beta[i] if beta and i < len(beta) else None)
        for i, name in enumerate(chosen)
    ]
    if clip is not None:
        limit = clip
        made = [lambda x, f=f: f(torch.clamp(x, -limit, limit)) for f in made]  # type: ignore[misc]
    count = len(standard)
    return [made[d * count : (d + 1) * count] for d in range(directions)]


def _run(x: Tensor, state: State, lengths: Tensor | None, step: Step, backward: bool) -> tuple[Tensor, State]:
    """All steps of one direction; an example that has ended keeps its state and gives zeros."""
    outputs: list[Tensor] = []
    times = range(x.shape[0])
    for t in reversed(times) if backward else times:
        new = step(x[t], state)
        if lengths is None:
            shown, state = new[0], new
        else:
            alive = (t < lengths)[:, None]
            state = tuple(torch.where(alive, now, before) for now, before in zip(new, state, strict=True))
            shown = torch.where(alive, state[0], torch.zeros_like(state[0]))
        outputs.append(shown)
    return torch.stack(outputs[::-1] if backward else outputs), state


def _sequences(
    x: Tensor,
    hidden: int,
    states: Sequence[Tensor | None],
    lengths: Tensor | None,
    steps: Sequence[Step],
    direction: str,
    layout: int,
) -> tuple[Tensor, ...]:
    """Y and the last states, over one or both directions."""
    x = x.transpose(0, 1) if layout else x
    outputs, last = [], []
    for d, step in enumerate(steps):
        zeros = x.new_zeros(x.shape[1], hidden)
        start = tuple(zeros if s is None else (s[:, d] if layout else s[d]) for s in states)
        y, final = _run(x, start, lengths, step, direction == "reverse" or d == 1)
        outputs.append(y)
        last.append(final)
    y = torch.stack(outputs, 1)
    final = tuple(torch.stack(parts, 1 if layout else 0) for parts in zip(*last, strict=True))
    return (y.permute(2, 0, 1, 3) if layout else y, *final)


def _biases(bias: Tensor | None, d: int) -> tuple[Tensor | None, Tensor | None]:
    return (None, None) if bias is None else tuple(bias[d].chunk(2))  # type: ignore[return-value]


@operator("RNN")
def rnn(
    x: Tensor,
    weight: Tensor,
    recurrence: Tensor,
    bias: Tensor | None = None,
    lengths: Tensor | None = None,
    initial_h: Tensor | None = None,
    *,
    activation_alpha: list[float] | None = None,
    activation_beta: list[float] | None = None,
    activations: list[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
) -> Result:
    """h' = f(W x + b_W + R h + b_R)."""
    hidden, count = recurrence.shape[-1], weight.shape[0]
    functions = _activations(activations, activation_alpha, activation_beta, ["Tanh"], count, clip)

    def step(d: int) -> Step:
        (f,), (b, c) = functions[d], _biases(bias, d)
        return lambda xt, state: (f(F.linear(xt, weight[d], b) + F.linear(state[0], recurrence[d], c)),)

    return _sequences(x, hidden, [initial_h], lengths, [step(d) for d in range(count)], direction, layout)


@operator("GRU")
def gru(
    x: Tensor,
    weight: Tensor,
    recurrence: Tensor,
    bias: Tensor | None = None,
    lengths: Tensor | None = None,
    initial_h: Tensor | None = None,
    *,
    activation_alpha: list[float] | None = None,
    activation_beta: list[float] | None = None,
    activations: list[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    linear_before_reset: int = 0,
) -> Result:
    """h' = (1 − z) n + z h with n = g(W x + b_W + r (R h + b_R)), or g(W x + b_W + R (r h) + b_R)."""
    hidden, count = recurrence.shape[-1], weight.shape[0]
    functions = _activations(activations, activation_alpha, activation_beta, ["Sigmoid", "Tanh"], count, clip)

    def step(d: int) -> Step:
        (f, g), (b, c) = functions[d], _biases(bias, d)
        late = None if c is None else c[2 * hidden :]

        def run(xt: Tensor, state: State) -> State:
            (h,) = state
            wz, wr, wn = F.linear(xt, weight[d], b).chunk(3, -1)
            early = None if c is None else c[: 2 * hidden]
            rz, rr = F.linear(h, recurrence[d, : 2 * hidden], early).chunk(2, -1)
            z, r = f(wz + rz), f(wr + rr)
            if linear_before_reset:
                n = g(wn + r * F.linear(h, recurrence[d, 2 * hidden :], late))
            else:
                n = g(wn + F.linear(r * h, recurrence[d, 2 * hidden :], late))
            return ((1 - z) * n + z * h,)

        return run

    return _sequences(x, hidden, [initial_h], lengths, [step(d) for d in range(count)], direction, layout)


@operator("LSTM")
def lstm(
    x: Tensor,
    weight: Tensor,
    recurrence: Tensor,
    bias: Tensor | None = None,
    lengths: Tensor | None = None,
    initial_h: Tensor | None = None,
    initial_c: Tensor | None = None,
    peepholes: Tensor | None = None,
    *,
    activation_alpha: list[float] | None = None,
    activation_beta: list[float] | None = None,
    activations: list[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
    layout: int = 0,
) -> Result:
    """c' = f c + i g, h' = o k(c'), gates from W x + b_W + R h + b_R and, through peepholes, from c."""
    hidden, count = recurrence.shape[-1], weight.shape[0]
    functions = _activations(activations, activation_alpha, activation_beta, ["Sigmoid", "Tanh", "Tanh"], count, clip)

    def step(d: int) -> Step:
        (f, g, k), (b, c_) = functions[d], _biases(bias, d)
        pi, po, pf = (0.0, 0.0, 0.0) if peepholes is None else peepholes[d].chunk(3)

        def run(xt: Tensor, state: State) -> State:
            h, c = state
            i, o, forget, new = (F.linear(xt, weight[d], b) + F.linear(h, recurrence[d], c_)).chunk(4, -1)
            i = f(i + pi * c)
            kept = 1 - i if input_forget else f(forget + pf * c)
            c = kept * c + i * g(new)
            return f(o + po * c) * k(c), c

        return run

    steps = [step(d) for d in range(count)]
    return _sequences(x, hidden, [initial_h, initial_c], lengths, steps, direction, layout)
