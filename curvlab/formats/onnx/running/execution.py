"""Running one node: attributes as values, outputs by name, and whatever goes wrong as one sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from curvlab.errors import CurvlabError
from curvlab.formats.onnx.operators.table import Operator, Result, UnsupportedOperator
from curvlab.formats.onnx.reading.graph import Node
from curvlab.formats.onnx.reading.tensors import StoredTensor
from curvlab.quoting import escaped, quoted, reason


class NodeError(CurvlabError):
    """A node that cannot be run on what it was given."""


def attributes_of(node: Node) -> dict[str, Any]:
    """The attributes, stored tensors read."""
    return {key: value.read() if isinstance(value, StoredTensor) else value for key, value in node.attributes.items()}


def run_operator(
    node: Node, operator: Operator, inputs: Sequence[Tensor | None], attributes: Mapping[str, Any]
) -> dict[str, Tensor]:
    """The node's outputs by name; those without a name are dropped.

    Raises:
        UnsupportedOperator: the node asks for something that its function does not do.
        NodeError: the inputs do not fit.
    """
    if node.hidden:
        raise UnsupportedOperator(f"operator {node.operator} with the attribute {node.hidden!r}", "not supported")
    inputs = list(inputs)
    while inputs and inputs[-1] is None:
        inputs.pop()
    with one_sentence(node):
        return named(node.outputs, operator(inputs, attributes, len(node.outputs)), node)


@contextmanager
def one_sentence(node: Node) -> Iterator[None]:
    """Whatever torch says about inputs or attributes that do not fit becomes a NodeError."""
    try:
        yield
    except CurvlabError:
        raise
    except (TypeError, AttributeError, LookupError) as error:
        # Python's words about a function here say nothing about the file.
        why = "its inputs or attributes are not those of the operator"
        raise NodeError(f"node {quoted(node.name)} ({escaped(node.operator)}) cannot be run", why) from error
    except Exception as error:
        raise NodeError(f"node {quoted(node.name)} ({escaped(node.operator)}) cannot be run", reason(error)) from error


def named(outputs: Sequence[str], result: Result, node: Node) -> dict[str, Tensor]:
    """A result's parts by the names of the outputs."""
    parts = (result,) if isinstance(result, Tensor) else tuple(result)
    if len(parts) < len(outputs):
        raise UnsupportedOperator(f"operator {node.operator} with {len(outputs)} outputs", "not supported")
    return {name: part for name, part in zip(outputs, parts, strict=False) if name and part is not None}
