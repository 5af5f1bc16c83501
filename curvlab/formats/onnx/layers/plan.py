"""Layers in a graph: the nodes whose weights are constants, with the torch module each one is.

    @recogniser("Conv")
    def conv(node: Node, graph: Constants) -> Recognised | None: ...

registers one; it says which constants become which tensors of the module, how the module is made, and how it is called.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Protocol

from torch import Tensor, nn

from curvlab.formats.dtypes import TensorSpec
from curvlab.formats.onnx.operators.table import Result
from curvlab.formats.onnx.reading.graph import Graph, Node
from curvlab.formats.onnx.reading.names import Names, common_prefix, layer_name, value_name

_FAMILIES = "convolution linear normalisation recurrent"
Shape = tuple[int, ...]


class Constant(Protocol):
    """A value known before the graph runs."""

    @property
    def spec(self) -> TensorSpec:
        """Shape and type."""

    def read(self) -> Tensor:
        """The elements."""


@dataclass(frozen=True)
class Role:
    """A tensor of a module: how it is made from a constant of the file."""

    source: str
    shape: Shape
    convert: Callable[[Tensor], Tensor] = lambda x: x


@dataclass(frozen=True)
class Recognised:
    """A node (or two) that is a layer.

    Attributes:
        node: the node.
        roles: name of the tensor in the module -> where it comes from; the weight first.
        make: the module, from the shapes of the node's inputs in a trial run; None when it is not one after all.
        call: its output from the values of `inputs`.
        inputs: names of the values it takes.
        outputs: names of the values it makes.
        absorbed: a second node whose work it does (the Add of a bias).
    """

    node: Node
    roles: Mapping[str, Role]
    make: Callable[[Sequence[Shape]], nn.Module | None]
    call: Callable[[nn.Module, Sequence[Tensor | None]], Result]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    absorbed: Node | None = None


class Constants:
    """What a recogniser may ask of a graph: which values are constants, and who uses a value.

    Args:
        graph: its nodes, without those that were folded.
        constants: name -> constant, folded ones included.
    """

    def __init__(self, graph: Graph, constants: Mapping[str, Constant]) -> None:
        self.constants = constants
        self._users: dict[str, list[Node]] = {}
        for node in graph.nodes:
            for name in node.inputs:
                self._users.setdefault(name, []).append(node)
        self._outputs = {value.name for value in graph.outputs}

    def weight(self, node: Node, index: int) -> TensorSpec | None:
        """Shape and type of input `index` if it is a constant of floating point."""
        if index >= len(node.inputs) or not node.inputs[index]:
            return None
        constant = self.constants.get(node.inputs[index])
        return constant.spec if constant is not None and constant.spec.is_float else None

    def given(self, node: Node, index: int) -> bool:
        """Whether input `index` is there at all."""
        return index < len(node.inputs) and bool(node.inputs[index])

    def unseen(self, values: Iterable[str]) -> bool:
        """Whether no node and no output uses these values."""
        return not any(self._users.get(value) or value in self._outputs for value in values)

    def only_user(self, value: str) -> Node | None:
        """The one node that uses a value, if there is exactly one and the value is no output."""
        users = self._users.get(value, [])
        return users[0] if len(users) == 1 and value not in self._outputs else None


Recogniser = Callable[[Node, Constants], Recognised | None]
_RECOGNISERS: dict[str, Recogniser] = {}


def recogniser(*operators: str) -> Callable[[Recogniser], Recogniser]:
    """Register how nodes of these operators are recognised."""

    def enter(function: Recogniser) -> Recogniser:
        _RECOGNISERS.update(dict.fromkeys(operators, function))
        return function

    return enter


@cache
def _recognisers() -> Mapping[str, Recogniser]:
    for family in _FAMILIES.split():
        importlib.import_module(f"curvlab.formats.onnx.layers.{family}")
    return _RECOGNISERS


@dataclass(frozen=True)
class Plan:
    """Names for everything: layers by their node, constants that are in no layer by their value.

    Attributes:
        layers: name of the layer -> what it is; nodes that are the same layer share the name.
        uses: outputs of a node -> the layer it uses, by name, and how.
        tied: tensor of a layer -> an earlier layer's that stands for the same constant.
        constants: value -> name, of the constants that nodes outside layers use, and others to be named.
        outside: values that nodes outside layers use.
    """

    layers: Mapping[str, Recognised]
    uses: Mapping[tuple[str, ...], tuple[str, Recognised]]
    tied: Mapping[str, str]
    constants: Mapping[str, str]
    outside: frozenset[str]


def plan(graph: Graph, constants: Mapping[str, Constant], keep: Iterable[str] = ()) -> Plan:
    """Every layer of the graph and a name for each, and for each constant that stays outside.

    Args:
        graph: without folded nodes.
        constants: name -> constant.
        keep: constants to be named even if no node uses them.
    """
    found, user = _recognised(graph, constants)
    named = {outputs: layer_name(_root(layer, constants), layer.node.name, layer.node.operator)
             for outputs, layer in found.items()}  # fmt: skip
    user.update({value.name: "output" for value in graph.outputs})
    used = frozenset(user)
    user.update({name: "" for name in keep if name not in user})
    values = {value: value_name(value, node) for value, node in user.items() if value in constants}
    # Names made of paths ("/model/encoder/…") often begin alike; a dotted name is one that its author chose.
    path_like = all("/" in layer.node.name or "::" in layer.node.name for layer in found.values())
    prefix = common_prefix(named.values()) if path_like else ""
    names = Names()
    layers: dict[str, Recognised] = {}
    uses: dict[tuple[str, ...], tuple[str, Recognised]] = {}
    tied: dict[str, str] = {}
    same_layer: dict[object, str] = {}
    same_tensor: dict[object, str] = {}
    for outputs, layer in found.items():
        key = (layer.node.operator, repr(sorted(layer.node.attributes.items(), key=str)), *_sources(layer))
        if key not in same_layer:
            name = names.fresh(named[outputs].removeprefix(prefix), layer.roles)
            same_layer[key], layers[name] = name, layer
            for role, source in layer.roles.items():
                first = same_tensor.setdefault((layer.node.operator, role, source.source), f"{name}.{role}")
                if first != f"{name}.{role}":
                    tied[f"{name}.{role}"] = first
        uses[outputs] = (same_layer[key], layer)
    named_values = {value: names.fresh(name.removeprefix(prefix)) for value, name in values.items()}
    return Plan(layers, uses, tied, named_values, used)


def _recognised(
    graph: Graph, constants: Mapping[str, Constant]
) -> tuple[dict[tuple[str, ...], Recognised], dict[str, str]]:
    """The layers by the outputs of their nodes; and a node outside layers for each value that one uses."""
    known = Constants(graph, constants)
    found: dict[tuple[str, ...], Recognised] = {}
    user: dict[str, str] = {}
    absorbed: set[tuple[str, ...]] = set()
    for node in graph.nodes:
        recognise = None if node.domain or node.hidden else _recognisers().get(node.operator)
        layer = None
        if recognise is not None and node.outputs:
            with suppress(TypeError, ValueError, LookupError, AttributeError):  # attributes of another kind: no layer
                layer = recognise(node, known)
        if layer is not None:
            found[node.outputs] = layer
            if layer.absorbed is not None:
                absorbed.add(layer.absorbed.outputs)
        elif node.outputs not in absorbed:
            for name in node.inputs:
                user.setdefault(name, node.name)
    return found, user


def _sources(layer: Recognised) -> tuple[str, ...]:
    return tuple(role.source for role in layer.roles.values())


def _root(layer: Recognised, constants: Mapping[str, Constant]) -> str:
    """The weight in the file that the layer's first tensor is made of."""
    name = next(iter(layer.roles.values())).source
    roots: Iterable[str] = getattr(constants[name], "sources", (name,))
    return min(roots, default=name)
