"""An ONNX file opened: its graph, its constants, and a name for every layer and weight."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from curvlab.errors import CheckpointError
from curvlab.formats.dtypes import TensorSpec
from curvlab.formats.onnx.layers.plan import Constant, Plan, plan
from curvlab.formats.onnx.reading.external_data import ExternalDataError
from curvlab.formats.onnx.reading.graph import Graph, opsets, read_graph
from curvlab.formats.onnx.reading.model_file import parsed_model
from curvlab.formats.onnx.reading.tensors import StoredTensor
from curvlab.formats.onnx.running.budget import Budget, TooMuch
from curvlab.formats.onnx.running.folding import fold, sources_of
from curvlab.quoting import quoted

Weight = tuple[str, TensorSpec, Callable[[], Tensor]]
"""Name, shape and type, and how it is read."""

_GRAPH, _GRAPHS = 5, 10  # AttributeProto.AttributeType


@dataclass(frozen=True)
class LoadedModel:
    """A model file, read.

    Attributes:
        model: the parsed message.
        graph: the outermost graph, without nodes that need constants only.
        constants: of that graph, by value.
        plan: its layers and names.
        weights: name -> its shape and type, and how it is read: those of inner graphs too, below the branch's name.
        aliases: second name of a weight that several layers share -> its first.
        files: the model's own and those with external data.
        left_out: tensors of types that torch has none of.
    """

    model: Any
    graph: Graph
    constants: Mapping[str, Constant]
    plan: Plan
    weights: Mapping[str, tuple[TensorSpec, Callable[[], Tensor]]]
    aliases: Mapping[str, str]
    files: tuple[Path, ...]
    left_out: tuple[str, ...]


def memory_for(path: Path, max_memory: int | None) -> int:
    """Bytes that trying the graph may take: what the caller allows, or 256 MiB and eight times the file."""
    return max_memory if max_memory is not None else 2**28 + 8 * path.stat().st_size


def loaded_model(path: Path, max_memory: int | None) -> LoadedModel:
    """Everything the file says, checked; nothing is run but what needs constants only.

    Raises:
        CheckpointError: no ONNX model, a malformed one, or one that asks for far more memory than it warrants.
        MemoryBudgetError: the file is larger than `max_memory`.
    """
    import onnx

    model = parsed_model(path, max_memory)
    budget = Budget(memory_for(path, max_memory), seconds=2.0, work=2e10)
    try:
        versions = opsets(model, onnx.defs.onnx_opset_version())
        graph, constants = fold(read_graph(model.graph, versions, path.parent), budget)
        planned = plan(graph, constants, graph.initializers)
        given = Given()
        weights = {name: (spec, read) for name, spec, read in given.layers(constants, planned)}
        inner = list(_inner(model.graph, versions, path.parent, constants, budget, given))
        own = {name: (spec, read) for name, spec, read in given.others(graph, constants, planned)}
    except TooMuch as refusal:
        raise CheckpointError(f"{quoted(path)} is not safe to run", str(refusal)) from None
    except ExternalDataError as refusal:
        raise CheckpointError(f"{quoted(path)}: {refusal.found}", refusal.why, refusal.do) from None
    except CheckpointError as refusal:
        said = refusal.found if not refusal.why else f"{refusal.found}: {refusal.why}"
        raise CheckpointError(f"{quoted(path)} is a malformed ONNX model", said, refusal.do) from None
    several = len({branch for branch, found in inner if found}) > 1
    for branch, found in inner:
        for name, spec, read in found:
            clash = several or name in weights or name in own
            weights.setdefault(f"{branch}.{name}" if clash else name, (spec, read))
    weights |= own
    aliases = {second: first for second, first in planned.tied.items() if first in weights}
    return LoadedModel(model, graph, constants, planned, weights, aliases, (path, *given.files), tuple(graph.left_out))


class Given:
    """Gives each weight of the file once, although both branches of an If may use it."""

    def __init__(self) -> None:
        self._roles: set[str] = set()
        self._in_layers: set[str] = set()
        self.files: dict[Path, None] = {}  # with external data

    def layers(self, constants: Mapping[str, Constant], planned: Plan) -> Iterator[Weight]:
        """Tensors of the layers as torch stores them."""
        external = (c.external for c in constants.values() if isinstance(c, StoredTensor) and c.external is not None)
        self.files.update((found.path, None) for found in external)
        for name, layer in planned.layers.items():
            for role, source in layer.roles.items():
                roots = sorted(sources_of(source.source, constants))
                key = f"{roots} {role}"
                self._in_layers.update((source.source, *roots))
                if f"{name}.{role}" not in planned.tied and key not in self._roles:
                    self._roles.add(key)
                    stored = constants[source.source]
                    spec = TensorSpec(source.shape, stored.spec.dtype)
                    yield f"{name}.{role}", spec, lambda s=source, c=stored: s.convert(c.read())  # type: ignore[misc]

    def others(self, graph: Graph, constants: Mapping[str, Constant], planned: Plan) -> Iterator[Weight]:
        """What else looks like weights; to be asked when all layers that may use them are known."""
        for value, name in planned.constants.items():
            constant = constants[value]
            needless = value in self._in_layers and value not in planned.outside
            if (
                not needless
                and value not in self._roles
                and _looks_like_a_weight(constant, value in graph.initializers)
            ):
                self._roles.add(value)
                yield name, constant.spec, constant.read


def _looks_like_a_weight(constant: Constant, initializer: bool) -> bool:
    """Floats of more than one number; of initializers also single ones in a list, and matrices of whole numbers."""
    spec = constant.spec
    if spec.is_float:
        return spec.elements > 1 or (initializer and bool(spec.shape))
    return initializer and len(spec.shape) > 1 and isinstance(constant, StoredTensor)


def _inner(
    proto: Any,
    versions: Mapping[str, int],
    directory: Path,
    outer: Mapping[str, Constant],
    budget: Budget,
    given: Given,
    branch: str = "",
    around: frozenset[str] = frozenset(),
) -> Iterator[tuple[str, list[Weight]]]:
    """Weights in the graphs of If, Loop and Scan, however deep: (the outermost branch's name, its weights)."""
    here = {name for node in proto.node for name in node.output} | {value.name for value in proto.input}
    known = around | here | outer.keys()
    for node in proto.node:
        for attribute in node.attribute:
            graphs = [attribute.g] if attribute.type == _GRAPH else list(attribute.graphs)
            for inner in graphs if attribute.type in (_GRAPH, _GRAPHS) else ():
                graph, constants = fold(read_graph(inner, versions, directory, known), budget, outer)
                name = branch or attribute.name
                planned = plan(graph, constants, graph.initializers)
                yield name, list(given.layers(constants, planned))
                yield from _inner(inner, versions, directory, constants, budget, given, name, known)
                yield name, list(given.others(graph, constants, planned))
