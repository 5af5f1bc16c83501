"""A network tried on one random input, and compared with onnxruntime or onnx's own reference."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from curvlab.errors import CurvlabError
from curvlab.formats.onnx.layers.plan import Shape
from curvlab.formats.onnx.operators.table import UnsupportedOperator, find_operator
from curvlab.formats.onnx.reading.graph import Graph, Size, Value
from curvlab.formats.onnx.running.budget import Budget, TooMuch
from curvlab.formats.onnx.running.network import OnnxNetwork
from curvlab.quoting import listed, quoted, reason

TOLERANCE, HALF_TOLERANCE = 1e-4, 1e-2
# What sizes that the inputs choose are tried with: (examples, every other).
_SIZES = tuple((n, m) for n in (2, 1) for m in (16, 64, 224, 512, 8, 4, 1))
_PIECE = 2**20
MAX_CHECKED = 30_000  # constants of a graph: the time that onnxruntime takes to open it grows with their square
_SLOW_REFERENCE = 2e8  # operations beyond which onnx's own reference, written for clearness, takes too long


class NotTrusted(CurvlabError):  # noqa: N818 - it becomes the reason why a file is read for its weights only
    """A network that could not be tried, or whose result is not the reference's."""


def unsupported(model: Any, graph: Graph) -> None:
    """Raise UnsupportedOperator for a graph that the table cannot run, naming all operators that are in the way."""
    if model.functions:
        raise UnsupportedOperator(
            "the graph calls functions of its own", "not supported", "export it with them inlined"
        )
    for value in (*graph.inputs, *graph.outputs):
        if value.dtype is None:
            raise UnsupportedOperator(
                f"{quoted(value.name)} is no tensor", "sequences, maps and text are not supported"
            )
    if graph.left_out:
        names = listed(graph.left_out, 2)
        raise UnsupportedOperator(f"it holds {names}", "torch has no tensors of this type")
    found: dict[str, UnsupportedOperator] = {}
    for node in graph.nodes:
        try:
            find_operator(node.operator, node.domain, node.opset)
        except UnsupportedOperator as why:
            found.setdefault(str(why), why)
    if found:
        first, others = next(iter(found.values())), len(found) - 1
        more = f" (and {others} more)" if others else ""
        raise UnsupportedOperator(f"{first.found} is not supported{more}", first.why)


@dataclass(frozen=True)
class Trial:
    """Inputs that the graph runs on, and the shapes of all values then."""

    inputs: Mapping[str, Tensor]
    shapes: Mapping[str, Shape]


def trial(network: OnnxNetwork, budget: Budget, given: Mapping[str, Tensor] | None = None) -> Trial:
    """The first sizes that the graph runs with, or the inputs that are given.

    Raises:
        NotTrusted: it runs with none of those tried.
        TooMuch: it asks for more than the budget.
    """
    said: CurvlabError | None = None
    for inputs in _inputs(network.inputs) if given is None else [given]:
        shapes: dict[str, Shape] = {}
        values = _Watched(shapes)
        budget.values = values
        try:
            with torch.no_grad(), budget:
                network.run(inputs, values)
        except (UnsupportedOperator, TooMuch):
            raise
        except CurvlabError as why:
            said = said or why
            continue
        finally:
            budget.values = {}
        return Trial(inputs, shapes)
    raise NotTrusted("it runs with none of the input sizes tried", str(said))


class _Watched(dict[str, Tensor]):
    """Values that leave their shapes behind when they are freed."""

    def __init__(self, shapes: dict[str, Shape]) -> None:
        super().__init__()
        self.shapes = shapes

    def update(self, *args: Any, **kwargs: Any) -> None:
        made = dict(*args, **kwargs)
        self.shapes.update({name: tuple(value.shape) for name, value in made.items()})
        super().update(made)


def _inputs(values: tuple[Value, ...]) -> Iterator[Mapping[str, Tensor]]:
    """Random inputs of the declared types and shapes; free sizes vary, equal names have equal sizes."""
    fixed = all(isinstance(size, int) for value in values for size in _shape(value))
    for examples, other in _SIZES[:1] if fixed else _SIZES:
        for most in (10, 2):
            generator = torch.Generator().manual_seed(0)
            sizes: dict[str, int] = {}
            yield {value.name: _random(value, examples, other, sizes, most, generator) for value in values}
            if all(value.dtype is None or value.dtype.startswith(("float", "bfloat")) for value in values):
                break


def _shape(value: Value) -> tuple[Size, ...]:
    """As declared; of one that is not, a guess."""
    return (None, None) if value.shape is None else value.shape


def _random(
    value: Value, examples: int, other: int, sizes: dict[str, int], most: int, generator: torch.Generator
) -> Tensor:
    """Entries of a normal distribution, or whole numbers below `most`; `sizes` remembers those with a name."""
    shape = []
    for axis, size in enumerate(_shape(value)):
        free = examples if axis == 0 else other
        shape.append(size if isinstance(size, int) else free if size is None else sizes.setdefault(size, free))
    dtype = getattr(torch, value.dtype or "float32")
    count = 1
    for size in shape:
        count *= size
    if count > 2**28:
        raise NotTrusted(f"the input {quoted(value.name)} has {count} numbers", "too many to try the graph with")
    if dtype.is_floating_point or dtype.is_complex:
        return torch.randn(shape, generator=generator).to(dtype)
    return torch.randint(0, 2 if dtype == torch.bool else most, shape, generator=generator).to(dtype)


def check_constants(model: Any) -> None:
    """Raise NotTrusted for a graph with more constants than a reference opens in reasonable time."""
    found, waiting = 0, [model.graph]
    while waiting:
        graph = waiting.pop()
        found += len(graph.initializer) + len(graph.sparse_initializer)
        for node in graph.node:
            found += node.op_type == "Constant"
            waiting += [inner for attribute in node.attribute for inner in (attribute.g, *attribute.graphs)]
    if found > MAX_CHECKED:
        raise NotTrusted(
            f"the graph has {found} constants", f"with more than {MAX_CHECKED}, checking it would take too long"
        )


class Reference(NamedTuple):
    """Somebody else's way to run the file: its name, and all outputs for inputs by name."""

    name: str
    outputs: Sequence[Any]


def reference(path: Path, inputs: Mapping[str, Tensor], work: float) -> Reference:
    """onnxruntime's outputs; or, where it is not installed or refuses the file (opsets before 7), onnx's own.

    Args:
        path: the model.
        inputs: by name.
        work: floating-point operations that the graph takes on them.

    Raises:
        NotTrusted: neither runs the file, or it is too much work for the second.
    """
    unknown = [name for name, x in inputs.items() if x.dtype == torch.bfloat16]
    if unknown:
        raise NotTrusted(
            f"the input {quoted(unknown[0])} is of the type bfloat16", "the references have no such arrays"
        )
    arrays = {name: x.numpy() for name, x in inputs.items()}
    try:
        return Reference("onnxruntime", _runtime(path).run(None, arrays))
    except ImportError:
        refused = "onnxruntime is not installed (curvlab[onnx] brings it)"
    except Exception as error:  # whatever a foreign program says about a foreign file
        refused = f"onnxruntime says {reason(error)}"
    if work > _SLOW_REFERENCE:
        raise NotTrusted("there is nothing to check the graph with", refused)
    from onnx.reference import ReferenceEvaluator

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outputs: Any = ReferenceEvaluator(str(path)).run(None, arrays)
            return Reference("onnx's reference", outputs)
    except Exception as error:
        raise NotTrusted(
            "there is nothing to check the graph with", f"{refused}, and onnx's reference {reason(error)}"
        ) from error


def _runtime(path: Path) -> Any:
    # Before its first import: it would file a number of this machine in the user's home and report how it is used.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def agreement(network: OnnxNetwork, expected: Reference, inputs: Mapping[str, Tensor]) -> float:
    """max |y − r| / max |r| over all outputs.

    Raises:
        NotTrusted: it is larger than the tolerance, or shapes or whole numbers differ.
    """
    with torch.no_grad():
        values = network.run(dict(inputs), {})
    worst = 0.0
    for value, wanted in zip(network.outputs, expected.outputs, strict=True):
        found, r = values[value.name], torch.from_numpy(np.require(wanted, requirements="W"))
        if found.shape != r.shape:
            raise NotTrusted(
                f"the output {quoted(value.name)} has the shape {tuple(found.shape)}",
                f"{expected.name} gives {tuple(r.shape)}",
            )
        difference = _difference(found, r)
        half = value.dtype in ("float16", "bfloat16")
        if not difference <= (HALF_TOLERANCE if half else TOLERANCE):
            raise NotTrusted(
                f"the output {quoted(value.name)} differs from {expected.name}'s by {difference:.1e} of its largest"
            )
        worst = max(worst, difference)
    return worst


def _difference(found: Tensor, wanted: Tensor) -> float:
    """Largest difference over the largest entry, piece by piece; NaN and ∞ must stand at the same places."""
    largest = scale = 0.0
    for a, b in zip(*(torch.split(x.reshape(-1), _PIECE) for x in (found, wanted)), strict=True):
        y, r = a.double(), b.double()
        finite = torch.isfinite(r)
        if not torch.equal(torch.isfinite(y), finite) or not torch.allclose(y[~finite], r[~finite], equal_nan=True):
            return float("inf")
        if bool(finite.any()):
            largest = max(largest, float((y - r)[finite].abs().max()))
            scale = max(scale, float(r[finite].abs().max()))
    return largest and largest / max(scale, 1e-12)
