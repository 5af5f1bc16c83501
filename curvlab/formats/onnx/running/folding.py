"""Constant folding: what a graph computes from constants alone is computed once, up to a number of bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from curvlab.formats.dtypes import TensorSpec
from curvlab.formats.onnx.layers.plan import Constant
from curvlab.formats.onnx.operators.table import UnsupportedOperator, find_operator
from curvlab.formats.onnx.reading.graph import Graph, Node
from curvlab.formats.onnx.running.budget import Budget
from curvlab.formats.onnx.running.execution import NodeError, attributes_of, run_operator

MOST_BYTES = 2**26
"""The most bytes of all results together; a larger one is computed each time the network runs, as the file says."""


@dataclass(frozen=True)
class Folded:
    """A value computed once, and the floating-point constants of the file that it was made of."""

    name: str
    value: Tensor
    sources: frozenset[str]

    @property
    def spec(self) -> TensorSpec:
        """Shape and type."""
        return TensorSpec(tuple(self.value.shape), str(self.value.dtype).removeprefix("torch."))

    def read(self) -> Tensor:
        """The elements, in memory of their own."""
        return self.value.clone()


def fold(
    graph: Graph, budget: Budget, outer: Mapping[str, Constant] | None = None
) -> tuple[Graph, dict[str, Constant]]:
    """The graph without the nodes that need constants only, and all constants, theirs and the outer graph's included.

    Raises:
        TooMuch: a step asks for more than the budget.
    """
    constants: dict[str, Constant] = {**(outer or {}), **graph.constants}
    kept: list[Node] = []
    held = 0
    for node in graph.nodes:
        made = _results(node, constants, budget) if held < MOST_BYTES else None
        if made is None:
            kept.append(node)
            continue
        constants.update(made)
        held += sum(value.value.nbytes for value in made.values())
    return replace(graph, nodes=tuple(kept)), constants


def _results(node: Node, constants: Mapping[str, Constant], budget: Budget) -> dict[str, Folded] | None:
    """What the node makes, when all it needs is constant, known to the table, and not too large."""
    if node.hidden or any(name and name not in constants for name in node.inputs):
        return None
    size = sum(constants[name].spec.stored_bytes for name in node.inputs if name)
    if size > MOST_BYTES:
        return None
    try:
        function = find_operator(node.operator, node.domain, node.opset)
        inputs = [constants[name].read() if name else None for name in node.inputs]
        with torch.no_grad(), budget:
            outputs = run_operator(node, function, inputs, attributes_of(node))
    except (UnsupportedOperator, NodeError):  # it stays in the graph, and says so when the network is tried
        return None
    if sum(value.nbytes for value in outputs.values()) > max(size, MOST_BYTES // 4):
        return None
    sources = frozenset(root for name in node.inputs if name for root in sources_of(name, constants))
    return {name: Folded(name, value.contiguous(), sources) for name, value in outputs.items()}


def sources_of(name: str, constants: Mapping[str, Constant]) -> frozenset[str]:
    """The floating-point constants of the file that a constant is, or was made of."""
    constant = constants[name]
    if isinstance(constant, Folded):
        return constant.sources
    return frozenset({name}) if constant.spec.is_float else frozenset()
