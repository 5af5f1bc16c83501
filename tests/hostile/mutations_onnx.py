"""ONNX graphs changed as graphs."""

from __future__ import annotations

from functools import cache
from random import Random
from typing import Any

from .mutations_bytes import NUMBERS, TEXTS, raw


@cache
def _operators() -> list[str]:
    from onnx import defs

    return sorted({schema.name for schema in defs.get_all_schemas()})


def edited_onnx(content: bytes, random: Random, marker: str) -> bytes:
    """Nodes, attributes, wires, shapes, types and versions of a graph changed."""
    from onnx import ModelProto

    model = ModelProto.FromString(content)
    for _ in range(random.choice((1, 1, 2, 3))):
        _edit_graph(model, random)
    written: bytes = model.SerializeToString()
    return written


def _edit_graph(model: Any, random: Random) -> None:
    graph = model.graph
    node, tensor = random.choice(graph.node), random.choice(graph.initializer)
    names = [name for other in graph.node for name in (*other.input, *other.output)]
    match random.randrange(13):
        case 0:
            node.op_type = random.choice(_operators())
        case 1 if node.input:
            node.input[random.randrange(len(node.input))] = random.choice((*names, "", "nobody"))
        case 2:
            node.input.append(random.choice(names))
        case 3 if node.output:
            node.output[random.randrange(len(node.output))] = random.choice((*names, "", "somebody"))
        case 4 if node.attribute:
            _edit_attribute(random.choice(node.attribute), random)
        case 5:
            random.choice(graph.node).attribute.extend(list(node.attribute))  # a copy: it may be the same node
        case 6 if tensor.dims:
            tensor.dims[random.randrange(len(tensor.dims))] = _int64(random)
        case 7:
            tensor.data_type = random.choice((*range(25), 99, -1))
        case 8:
            tensor.raw_data = raw(tensor.raw_data, random)
        case 9:
            entries = [entry for other in graph.initializer for entry in other.external_data]
            if entries:
                random.choice(entries).value = str(
                    random.choice((*NUMBERS, *(text for text in TEXTS if text != "\ud800")))
                )
            else:
                model.opset_import[0].version = random.choice((*range(-1, 30), 2**40))
        case 10:
            dims = graph.input[0].type.tensor_type.shape.dim
            random.choice(dims).dim_value = _int64(random)
        case 11:
            graph.node.insert(random.randrange(len(graph.node)), node)
        case _:
            del graph.node[random.randrange(len(graph.node) - 1)]
            graph.node.extend([] if graph.node else [node])


def _edit_attribute(attribute: Any, random: Random) -> None:
    if attribute.ints and random.random() < 0.7:
        attribute.ints[random.randrange(len(attribute.ints))] = _int64(random)
    elif random.random() < 0.7:
        attribute.i = _int64(random)
    else:
        attribute.type = random.randrange(15)
        attribute.f = random.choice((0.0, -1.0, 1e30, float("nan")))
        attribute.ints.append(_int64(random))


def _int64(random: Random) -> int:
    return (random.choice(NUMBERS) + 2**63) % 2**64 - 2**63
