"""Graph: what an ONNX model computes, as plain data, in an order to run it in; malformed graphs are refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

from curvlab.errors import CheckpointError
from curvlab.formats.onnx.operators.element_types import NAMES
from curvlab.formats.onnx.reading.tensors import StoredTensor, stored_tensor, text
from curvlab.quoting import quoted

Size = int | str | None
"""A number, the name of one that the inputs choose, or unknown."""


@dataclass(frozen=True)
class Value:
    """An input or output of the graph: a tensor, or (`dtype` None) something else."""

    name: str
    dtype: str | None
    shape: tuple[Size, ...] | None


@dataclass(frozen=True)
class Node:
    """One operation; an input named "" is left out.

    Attributes:
        name: as in the file, or made of the operator and the node's number.
        operator: its name in its domain.
        domain: "" is ONNX's own.
        opset: the version of the domain that the model uses.
        inputs: names of values.
        outputs: names of values.
        attributes: numbers, text, lists and tensors.
        hidden: the name of an attribute that is none of these (a graph, a sequence), or None.
    """

    name: str
    operator: str
    domain: str
    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    hidden: str | None = None


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which they can be run, and what is known before they are.

    Attributes:
        nodes: without those that make constants.
        inputs: what the caller gives; those with a stored value are not among them.
        outputs: what the caller gets.
        constants: name -> tensor: initializers and Constant nodes.
        initializers: names of those constants that stand in the file as weights.
        left_out: constants that torch has no tensors of, and why nothing that needs them can run.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    constants: Mapping[str, StoredTensor]
    initializers: frozenset[str]
    left_out: Mapping[str, str]


def opsets(model: Any, newest: int) -> dict[str, int]:
    """Domain -> version.

    Raises:
        CheckpointError: none is given for ONNX's own operators, or one that the installed onnx does not know.
    """
    versions = {_domain(entry): int(entry.version) for entry in model.opset_import}
    version = versions.get("")
    if version is not None and not 1 <= version <= newest:
        raise CheckpointError(
            f"the model uses operator set {version} of ONNX",
            f"the installed onnx knows 1 to {newest}",
            "update onnx if the file is honest",
        )
    return versions


def read_graph(proto: Any, versions: Mapping[str, int], directory: Path, outer: frozenset[str] = frozenset()) -> Graph:
    """A GraphProto as data; `outer` are values of the graph around it.

    Raises:
        CheckpointError: a value used that nothing makes, a cycle, a value made twice, a domain that the model does not
            declare, a malformed tensor.
    """
    constants: dict[str, StoredTensor] = {}
    left_out: dict[str, str] = {}
    for tensor in proto.initializer:
        _keep(tensor.name, stored_tensor(tensor, directory), constants, left_out)
    for sparse in proto.sparse_initializer:
        left_out[text(sparse.values.name)] = "it is a sparse tensor"
    initializers = frozenset(constants)
    nodes = []
    for index, node in enumerate(proto.node):
        made = read_node(node, index, versions, directory)
        value = made.attributes.get("value")
        if made.operator == "Constant" and not made.domain and isinstance(value, StoredTensor) and made.outputs:
            _once(made.outputs[0], constants)
            constants[made.outputs[0]] = value
        else:
            nodes.append(made)
    given = [_value(info) for info in proto.input]
    inputs = tuple(value for value in given if value.name not in constants and value.name not in left_out)
    known = {value.name for value in given} | constants.keys() | left_out.keys()
    known |= outer
    ordered = tuple(_ordered(nodes, known, outer))
    outputs = tuple(_value(info) for info in proto.output)
    made_here = known | {name for node in nodes for name in node.outputs}
    for value in outputs:
        if value.name not in made_here:
            raise CheckpointError(f"the graph's output {quoted(value.name)} is made by no node")
    return Graph(ordered, inputs, outputs, constants, initializers, left_out)


def read_node(node: Any, index: int, versions: Mapping[str, int], directory: Path) -> Node:
    """A NodeProto as data."""
    domain, operator = _domain(node), text(node.op_type)
    name = text(node.name) or f"{operator}_{index}"
    if domain not in versions:
        said = f"the domain {quoted(domain)}" if domain else "ONNX's own domain"
        raise CheckpointError(
            f"node {quoted(name)} is the operator {quoted(operator)} of {said}", "which the model does not declare"
        )
    attributes: dict[str, Any] = {}
    hidden = None
    for attribute in node.attribute:
        text(attribute.name)
        read = _ATTRIBUTES.get(attribute.type)
        if attribute.type == _TENSOR:
            tensor = stored_tensor(attribute.t, directory, f"{name}.{attribute.name}")
            hidden = attribute.name if tensor is None else hidden
            attributes[attribute.name] = tensor
        elif read is None or attribute.ref_attr_name:
            hidden = attribute.name
        else:
            attributes[attribute.name] = read(attribute)
    outputs = tuple(map(text, node.output))
    while outputs and not outputs[-1]:
        outputs = outputs[:-1]
    if not outputs:
        raise CheckpointError(f"node {quoted(name)} makes nothing")
    return Node(name, operator, domain, versions[domain], tuple(map(text, node.input)), outputs, attributes, hidden)


_TENSOR = 4  # AttributeProto.AttributeType
_ATTRIBUTES: dict[int, Callable[[Any], Any]] = {
    1: lambda a: float(a.f),
    2: lambda a: int(a.i),
    3: lambda a: a.s.decode("utf-8", "replace"),
    6: lambda a: [float(v) for v in a.floats],
    7: lambda a: [int(v) for v in a.ints],
    8: lambda a: [v.decode("utf-8", "replace") for v in a.strings],
}


def _keep(name: str, tensor: StoredTensor | None, constants: dict[str, StoredTensor], left_out: dict[str, str]) -> None:
    _once(name, {**constants, **left_out} if name in left_out else constants)
    if tensor is None:
        left_out[name] = "torch has no tensors of its type"
    else:
        constants[name] = tensor


def _once(name: str, made: Mapping[str, Any]) -> None:
    if name in made:
        raise CheckpointError(f"the value {quoted(name)} is made twice")


def _value(info: Any) -> Value:
    kind, name = info.type.WhichOneof("value"), text(info.name)
    if kind != "tensor_type":
        return Value(name, None, None)
    tensor = info.type.tensor_type
    shape = None
    if tensor.HasField("shape"):
        shape = tuple(_size(dim) for dim in tensor.shape.dim)
    return Value(name, NAMES.get(tensor.elem_type), shape)


def _size(dim: Any) -> Size:
    if dim.WhichOneof("value") == "dim_value":
        return int(dim.dim_value) if dim.dim_value > 0 else None
    return text(dim.dim_param) or None


def _domain(entry: Any) -> str:
    domain = text(entry.domain)
    return "" if domain == "ai.onnx" else domain


def _ordered(nodes: list[Node], known: set[str], outer: frozenset[str]) -> Iterator[Node]:
    """Every node behind those whose outputs it uses: the file's own order where that is one."""
    maker: dict[str, int] = {}
    own = known - outer
    for index, node in enumerate(nodes):
        for name in node.outputs:
            if name and (name in maker or name in own):
                raise CheckpointError(f"the value {quoted(name)} is made twice", f"by node {quoted(node.name)} too")
            maker[name] = index
    waiting: list[set[int]] = []
    users: dict[int, list[int]] = {}
    for index, node in enumerate(nodes):
        needed: set[int] = set()
        for name in node.inputs:
            if not name or name in known:
                continue
            if name not in maker:
                raise CheckpointError(
                    f"node {quoted(node.name)} uses {quoted(name)}", "which nothing in the graph makes"
                )
            needed.add(maker[name])
        waiting.append(needed)
        for other in needed:
            users.setdefault(other, []).append(index)
    ready = [index for index, needed in enumerate(waiting) if not needed]  # sorted, so already a heap
    done = 0
    while ready:
        index = heappop(ready)
        done += 1
        yield nodes[index]
        for user in users.get(index, ()):
            waiting[user].discard(index)
            if not waiting[user]:
                heappush(ready, user)
    if done < len(nodes):
        stuck = next(nodes[i] for i, needed in enumerate(waiting) if needed)
        raise CheckpointError(f"node {quoted(stuck.name)} needs its own output", "the graph is a circle")
