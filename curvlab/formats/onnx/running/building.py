"""Building an `OnnxNetwork`: first as bare nodes, which are tried, then with its layers as modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from curvlab.formats.onnx.layers.plan import Constant, Plan, Recognised, Shape
from curvlab.formats.onnx.operators.table import find_operator
from curvlab.formats.onnx.reading.graph import Graph, Node
from curvlab.formats.onnx.running.execution import attributes_of, one_sentence
from curvlab.formats.onnx.running.network import (
    OnnxNetwork,
    Step,
    fill,
    freeing,
    functional_step,
    is_weight,
    layer_step,
    place,
)


def bare_network(graph: Graph, constants: Mapping[str, Constant]) -> OnnxNetwork:
    """Every node run by the table, every constant a buffer: to be tried, and to see the shapes of all values.

    Raises:
        UnsupportedOperator: the first node that the table does not know.
    """
    network = OnnxNetwork(graph.inputs, graph.outputs)
    used = {name for node in graph.nodes for name in node.inputs} | {value.name for value in graph.outputs}
    for number, name in enumerate(name for name in constants if name in used):
        network.register_buffer(f"constant_{number}", constants[name].read())
        network.places[name] = f"constant_{number}"
    steps = [_functional(node) for node in graph.nodes]
    network.steps = freeing(steps, (value.name for value in graph.outputs), constants)
    return network


def network_of(
    graph: Graph,
    constants: Mapping[str, Constant],
    plan: Plan,
    shapes: Mapping[str, Shape],
    read: Callable[[str, Callable[[], Tensor]], Tensor],
) -> OnnxNetwork:
    """The network with its layers as modules.

    Args:
        graph: without folded nodes.
        constants: name -> constant.
        plan: which nodes are layers, and all names.
        shapes: of every value in a trial run.
        read: a tensor by its name in the network, or what makes it where the caller has none of this name.
    """
    network = OnnxNetwork(graph.inputs, graph.outputs)
    modules: dict[str, nn.Module | None] = {}
    steps: list[Step] = []
    outside: list[Node] = []
    done: set[tuple[str, ...]] = set()
    for node in graph.nodes:
        if node.outputs in done:
            continue
        if node.outputs in plan.uses:
            name, layer = plan.uses[node.outputs]
            if name not in modules:
                modules[name] = _module(name, layer, constants, shapes, read)
            module = modules[name]
            if module is not None:
                place(network, name, module)
                steps.append(layer_step(name, layer))
                if layer.absorbed is not None:
                    done.add(layer.absorbed.outputs)
                continue
        steps.append(_functional(node))
        outside.append(node)
    users: dict[str, set[str]] = {value.name: set() for value in graph.outputs}
    for node in outside:
        for value_used in node.inputs:
            users.setdefault(value_used, set()).add(node.operator)
    for value, constant in constants.items():
        if value in users:
            name = plan.constants.get(value) or _spare(network)
            tensor = read(name, constant.read)
            place(network, name, nn.Parameter(tensor) if is_weight(constant.spec, users[value]) else tensor)
            network.places[value] = name
    _tie(network, plan.tied)
    network.steps = freeing(steps, (value.name for value in graph.outputs), constants)
    return network.eval()


def _functional(node: Node) -> Step:
    return functional_step(node, find_operator(node.operator, node.domain, node.opset), attributes_of(node))


def _module(
    name: str,
    layer: Recognised,
    constants: Mapping[str, Constant],
    shapes: Mapping[str, Shape],
    read: Callable[[str, Callable[[], Tensor]], Tensor],
) -> nn.Module | None:
    with one_sentence(layer.node):
        module = layer.make([shapes.get(value, ()) for value in layer.inputs])
    if module is None:
        return None

    def tensor(role: str) -> Tensor:
        source = layer.roles[role]
        return read(f"{name}.{role}", lambda: source.convert(constants[source.source].read()))

    return fill(module, {role: tensor(role) for role in layer.roles})


def _tie(network: nn.Module, tied: Mapping[str, str]) -> None:
    """Tensors of several layers that are one constant of the file become one parameter."""
    parameters = dict(network.named_parameters(remove_duplicate=False))
    for second, first in tied.items():
        if second in parameters and first in parameters:
            place(network, second, parameters[first])


def _spare(network: nn.Module) -> str:
    """A name for a constant that the plan had none for: of a node that looked like a layer and is none."""
    number = 0
    while hasattr(network, f"constant_{number}"):
        number += 1
    return f"constant_{number}"
