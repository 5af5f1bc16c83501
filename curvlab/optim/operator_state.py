"""The operators in use as plain data: each with the step it is of, and how often in a row a newer one failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from curvlab.operators.operator import Operator
from curvlab.operators.pack import pack, unpack
from curvlab.optim.last_good import Kept, LastGood
from curvlab.optim.saved_state import moved


def packed(operators: LastGood[Operator]) -> dict[str, dict[str, Any]]:
    """Block name -> {"value", "step", "failures"}; the value is None where there never was an operator."""
    return {
        name: {"value": None if kept.value is None else pack(kept.value), "step": kept.step, "failures": kept.failures}
        for name, kept in operators.blocks.items()
    }


def unpacked(state: Mapping[str, Mapping[str, Any]], like: Tensor) -> LastGood[Operator]:
    """What `packed` gave, with the device and floating type of `like`."""
    operators: LastGood[Operator] = LastGood()
    for name, kept in moved(dict(state), like).items():
        value = None if kept["value"] is None else unpack(kept["value"])
        operators.blocks[name] = Kept(value, kept["step"], kept["failures"])
    return operators
