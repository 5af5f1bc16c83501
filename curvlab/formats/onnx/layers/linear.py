"""Products with a constant matrix: nn.Linear, its bias the constant added next; nn.Embedding for a table."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from curvlab.formats.onnx.layers.plan import Constants, Recognised, Role, Shape, recogniser
from curvlab.formats.onnx.operators.indexing import from_front
from curvlab.formats.onnx.reading.graph import Node


@recogniser("Gemm")
def gemm(node: Node, graph: Constants) -> Recognised | None:
    """y = x weightᵀ + bias."""
    told, weight = node.attributes, graph.weight(node, 1)
    if weight is None or len(weight.shape) != 2 or told.get("transA") or told.get("alpha", 1) != 1:
        return None
    stored_by_rows = bool(told.get("transB"))
    out = weight.shape[0 if stored_by_rows else 1]
    bias = None
    if graph.given(node, 2):
        bias = _bias(node.inputs[2], graph, node, 2, out, weight.dtype)
        if bias is None or told.get("beta", 1) != 1:
            return None
    return _linear(node, graph, Role(node.inputs[1], weight.shape), stored_by_rows, bias, None)


@recogniser("MatMul")
def matmul(node: Node, graph: Constants) -> Recognised | None:
    """y = x weightᵀ, with a bias if one is added next and nothing else sees the product."""
    weight = graph.weight(node, 1)
    if weight is None or len(weight.shape) != 2 or node.inputs[0] in graph.constants:
        return None
    follower = graph.only_user(node.outputs[0])
    bias = None
    if follower is not None and follower.operator == "Add" and not follower.domain and not follower.attributes:
        index = 1 if follower.inputs[0] == node.outputs[0] else 0
        bias = _bias(follower.inputs[index], graph, follower, index, weight.shape[1], weight.dtype)
    absorbed = follower if bias is not None else None
    return _linear(node, graph, Role(node.inputs[1], weight.shape), False, bias, absorbed)


def _bias(source: str, graph: Constants, node: Node, index: int, out: int, dtype: str) -> Role | None:
    """A constant that is one number per output."""
    spec = graph.weight(node, index)
    if spec is None or spec.dtype != dtype or spec.shape[-1:] != (out,) or spec.elements != out or len(spec.shape) > 3:
        return None
    return Role(source, (out,), lambda b: b.reshape(-1))


def _linear(
    node: Node, graph: Constants, stored: Role, by_rows: bool, bias: Role | None, absorbed: Node | None
) -> Recognised | None:
    out, into = stored.shape if by_rows else stored.shape[::-1]
    if 0 in stored.shape:
        return None
    weight = stored if by_rows else Role(stored.source, (out, into), lambda w: w.T.contiguous())
    roles = {"weight": weight} | ({} if bias is None else {"bias": bias})
    bias_axes = 0 if bias is None else len(graph.constants[bias.source].spec.shape)

    def make(inputs: Sequence[Shape]) -> nn.Module | None:
        # A bias of more axes than the product would add axes to it.
        return None if bias_axes > len(inputs[0]) else nn.Linear(into, out, bias is not None, device="meta")

    def call(module: nn.Module, inputs: Sequence[Tensor | None]) -> Tensor:
        result: Tensor = module(inputs[0])
        return result

    outputs = node.outputs if absorbed is None else absorbed.outputs
    return Recognised(node, roles, make, call, node.inputs[:1], outputs, absorbed)


@recogniser("Gather")
def gather(node: Node, graph: Constants) -> Recognised | None:
    """Rows of a constant table, chosen by what the graph computes."""
    table = graph.weight(node, 0)
    if table is None or len(table.shape) != 2 or node.attributes.get("axis", 0) not in (0, -2):
        return None
    if node.inputs[1] in graph.constants or 0 in table.shape:
        return None
    rows, width = table.shape

    def make(inputs: Sequence[Shape]) -> nn.Module | None:
        return nn.Embedding(rows, width, device="meta")

    def call(module: nn.Module, inputs: Sequence[Tensor | None]) -> Tensor:
        (index,) = inputs
        assert index is not None
        result: Tensor = module(from_front(index, rows))
        return result

    roles = {"weight": Role(node.inputs[0], table.shape)}
    return Recognised(node, roles, make, call, node.inputs[1:2], node.outputs)
