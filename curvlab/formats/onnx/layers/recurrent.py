"""nn.LSTM, nn.GRU and nn.RNN: ONNX's gates i, o, f, c and z, r, h in torch's order i, f, g, o and r, z, n."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from curvlab.formats.onnx.layers.plan import Constants, Recognised, Role, Shape, recogniser
from curvlab.formats.onnx.operators.table import Result
from curvlab.formats.onnx.reading.graph import Node

# torch's k-th gate is ONNX's _ORDER[k]-th.
_ORDER = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
_ACTIVATIONS = {"LSTM": ["sigmoid", "tanh", "tanh"], "GRU": ["sigmoid", "tanh"]}
_KNOWN = frozenset({"activations", "direction", "hidden_size", "layout", "linear_before_reset", "input_forget"})


def reordered(stacked: Tensor, operator: str) -> Tensor:
    """Rows of the gates in torch's order."""
    gates = stacked.chunk(len(_ORDER[operator]))
    return torch.cat([gates[k] for k in _ORDER[operator]])


def _matrix(stored: Tensor, direction: int, operator: str) -> Tensor:
    return reordered(stored[direction], operator)


def _half(stored: Tensor, direction: int, operator: str, half: int) -> Tensor:
    return reordered(stored[direction].chunk(2)[half], operator)


@recogniser("LSTM", "GRU", "RNN")
def recurrent(node: Node, graph: Constants) -> Recognised | None:
    """Where activations, gates and lengths are torch's own; a layer run backwards gets its input reversed."""
    told, operator = node.attributes, node.operator
    weight, recurrence, bias = (graph.weight(node, i) for i in (1, 2, 3))
    if weight is None or recurrence is None or len(weight.shape) != 3 or len(recurrence.shape) != 3:
        return None
    directions, rows, into = weight.shape
    hidden, gates = recurrence.shape[2], len(_ORDER[operator])
    functions = [name.lower() for name in told.get("activations", ())]
    standard = _ACTIVATIONS.get(operator, ["relu"] if functions[:1] == ["relu"] else ["tanh"])
    torch_like = (
        not told.keys() - _KNOWN
        and functions in ([], standard * directions)
        and not told.get("input_forget")
        and (operator != "GRU" or told.get("linear_before_reset"))
        and not graph.given(node, 4)  # lengths
        and not graph.given(node, 7)  # peepholes
        and (bias is not None or not graph.given(node, 3))
    )
    fits = rows == gates * hidden and recurrence.shape[:2] == (directions, rows) and min(rows, into) > 0
    if not torch_like or not fits or (bias is not None and bias.shape != (directions, 2 * rows)):
        return None
    direction = told.get("direction", "forward")
    if directions != (2 if direction == "bidirectional" else 1):
        return None
    roles: dict[str, Role] = {}
    for d, suffix in enumerate(("l0", "l0_reverse")[:directions]):
        roles[f"weight_ih_{suffix}"] = Role(
            node.inputs[1], (rows, into), partial(_matrix, direction=d, operator=operator)
        )
        roles[f"weight_hh_{suffix}"] = Role(
            node.inputs[2], (rows, hidden), partial(_matrix, direction=d, operator=operator)
        )
        for half, side in enumerate(("ih", "hh")):
            if bias is not None:
                convert = partial(_half, direction=d, operator=operator, half=half)
                roles[f"bias_{side}_{suffix}"] = Role(node.inputs[3], (rows,), convert)

    def make(inputs: Sequence[Shape]) -> nn.Module | None:
        kind: Any = getattr(nn, operator)
        options: dict[str, Any] = {"nonlinearity": standard[0]} if operator == "RNN" else {}
        both = directions == 2
        module: nn.Module = kind(into, hidden, bias=bias is not None, bidirectional=both, device="meta", **options)
        return module

    states = node.inputs[5:7] if operator == "LSTM" else node.inputs[5:6]
    call = partial(_call, node=node, directions=directions, hidden=hidden, backward=direction == "reverse")
    return Recognised(node, roles, make, call, (node.inputs[0], *states), node.outputs)


def _call(
    module: nn.Module, inputs: Sequence[Tensor | None], node: Node, directions: int, hidden: int, backward: bool
) -> Result:
    """Y `[steps, directions, examples, hidden]` and the last states; torch has directions beside hidden."""
    x, *given = inputs
    assert x is not None
    layout = node.attributes.get("layout", 0)
    x = x.transpose(0, 1) if layout else x
    x = x.flip(0) if backward else x
    states = [None if s is None else s.transpose(0, 1) if layout else s for s in given]
    start: Any = None
    if any(s is not None for s in states):
        zeros = x.new_zeros(directions, x.shape[1], hidden)
        full = [zeros if s is None else s.contiguous() for s in [*states, None][: 2 if node.operator == "LSTM" else 1]]
        start = tuple(full) if node.operator == "LSTM" else full[0]
    y, last = module(x) if start is None else module(x, start)
    y = y.reshape(*y.shape[:2], directions, hidden).transpose(1, 2)
    y = y.flip(0) if backward else y
    final = last if isinstance(last, tuple) else (last,)
    if layout:
        return (y.permute(2, 0, 1, 3), *(s.transpose(0, 1) for s in final))
    return (y, *final)
