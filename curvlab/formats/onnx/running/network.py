"""OnnxNetwork: an ONNX graph as an `nn.Module` whose layers are torch's own modules."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from curvlab.errors import DataError
from curvlab.formats.dtypes import TensorSpec
from curvlab.formats.onnx.layers.plan import Recognised
from curvlab.formats.onnx.operators.table import Operator
from curvlab.formats.onnx.reading.graph import Node, Value
from curvlab.formats.onnx.running.execution import named, one_sentence, run_operator
from curvlab.quoting import listed

# Operators through which a constant takes part in the computation as a weight does; elsewhere it is a setting.
_WEIGHTED = frozenset(
    [
        "Add",
        "Sub",
        "Mul",
        "Div",
        "MatMul",
        "Gemm",
        "Conv",
        "ConvTranspose",
        "PRelu",
        "Gather",
        "Concat",
        "Expand",
        "Where",
        "Pow",
        "Sum",
        "Max",
        "Min",
        "Einsum",
        "BatchNormalization",
        "InstanceNormalization",
        "GroupNormalization",
        "LayerNormalization",
        "RMSNormalization",
        "LSTM",
        "GRU",
        "RNN",
        "Attention",
        "RotaryEmbedding",
        "CausalConvWithState",
        "DeformConv",
    ]
)


@dataclass(frozen=True)
class Step:
    """One node, or the layer it is.

    Attributes:
        node: for its names.
        run: the node's outputs by name, from the values of `inputs`.
        inputs: names of values; "" is left out.
        frees: values that are not needed any more.
    """

    node: Node
    run: Callable[[nn.Module, Sequence[Tensor | None]], dict[str, Tensor]]
    inputs: tuple[str, ...]
    frees: tuple[str, ...]


class OnnxNetwork(nn.Module):
    """y = graph(x): the nodes one after another; layers are modules, other weights parameters, other constants buffers.

    A call takes the graph's inputs by position or by name and returns its output, or a tuple of its outputs. Inputs of
    whole numbers may be given in any type. Attributes read by others:

    Attributes:
        inputs: names, types and shapes that the graph declares.
        outputs: likewise.
    """

    def __init__(self, inputs: Sequence[Value], outputs: Sequence[Value]) -> None:
        super().__init__()
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.steps: tuple[Step, ...] = ()
        self.places: dict[str, str] = {}
        self._kind: Tensor
        self.register_buffer("_kind", torch.zeros(0), persistent=False)  # its type is the network's own

    @property
    def whole_inputs(self) -> bool:
        """Whether the first input is declared to be of whole numbers: data is then not scaled for it."""
        kind = self.inputs[0].dtype if self.inputs else None
        return kind is not None and not getattr(torch, kind).is_floating_point

    @property
    def example_shape(self) -> tuple[int, ...] | None:
        """The shape of one example where the graph declares it, its first axis being the examples'."""
        shape = self.inputs[0].shape if len(self.inputs) == 1 else None
        sizes = tuple(size for size in (shape or ())[1:] if isinstance(size, int) and size > 0)
        return sizes if shape and len(sizes) == len(shape) - 1 else None

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The graph's output, or all of them."""
        # Sizes and positions that the graph computes must be made where the weights are.
        with nullcontext() if self._kind.device.type == "cpu" else self._kind.device:
            values = self.run(self.arguments(args, kwargs), {})
        outputs = tuple(values[value.name] for value in self.outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def leave_off(self, operator: str) -> str | None:
        """Makes the input of the last node the output, if that is this operator and the only output; its name then."""
        ends = [step.node for step in self.steps if self.outputs[0].name in step.node.outputs]
        if len(self.outputs) != 1 or len(ends) != 1 or (ends[0].operator, ends[0].domain) != (operator, ""):
            return None
        kept = [step for step in self.steps if step.node is not ends[0]]
        if any(self.outputs[0].name in step.inputs for step in kept):
            return None
        self.outputs = (replace(self.outputs[0], name=ends[0].inputs[0]),)
        self.steps = freeing(kept, [ends[0].inputs[0]], self.places)
        return ends[0].name

    def run(self, given: Mapping[str, Tensor], values: dict[str, Tensor]) -> dict[str, Tensor]:
        """All steps; `values` is filled with what is made and emptied of what is not needed any more.

        Raises:
            NodeError: the inputs do not fit.
        """
        constants = {name: self._at(place) for name, place in self.places.items()}
        values.update(given)
        kind: torch.dtype = self._kind.dtype
        for step in self.steps:
            inputs = [values[n] if n in values else constants[n] if n else None for n in step.inputs]
            made = step.run(self, inputs)
            if kind != torch.float32:  # of a network turned to float64, what the graph makes as float32 follows
                made = {n: v.to(kind) if v.dtype == torch.float32 else v for n, v in made.items()}
            values.update(made)
            for name in step.frees:
                values.pop(name, None)
        values.update({v.name: constants[v.name] for v in self.outputs if v.name not in values})
        return values

    def arguments(self, args: Sequence[Tensor], kwargs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The graph's inputs by name, whole numbers in the declared type.

        Raises:
            DataError: too few or too many, or a name that is none.
        """
        names = [value.name for value in self.inputs]
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        if len(args) > len(names) or given.keys() != set(names):
            raise DataError(f"the network takes the inputs {listed(names)}", f"{len(args) + len(kwargs)} were given")
        for value in self.inputs:
            x, wanted = given[value.name], getattr(torch, value.dtype or "float32")
            if not wanted.is_floating_point or not x.is_floating_point():
                given[value.name] = x.to(wanted if not wanted.is_floating_point else self._kind.dtype)
        return given

    def _at(self, place: str) -> Tensor:
        owner, _, name = place.rpartition(".")
        tensor: Tensor = getattr(self.get_submodule(owner), name)
        return tensor


def functional_step(node: Node, operator: Operator, attributes: Mapping[str, Any]) -> Step:
    """A node that is run by the table."""

    def run(network: nn.Module, inputs: Sequence[Tensor | None]) -> dict[str, Tensor]:
        return run_operator(node, operator, inputs, attributes)

    return Step(node, run, node.inputs, ())


def layer_step(name: str, layer: Recognised) -> Step:
    """A node that is a module of the network."""

    def run(network: nn.Module, inputs: Sequence[Tensor | None]) -> dict[str, Tensor]:
        with one_sentence(layer.node):
            return named(layer.outputs, layer.call(network.get_submodule(name), inputs), layer.node)

    return Step(layer.node, run, layer.inputs, ())


def freeing(steps: Sequence[Step], outputs: Iterable[str], constants: Iterable[str]) -> tuple[Step, ...]:
    """The steps, each with the values that are last needed by it."""
    needed = {*outputs, *constants}
    freed: list[Step] = []
    for step in reversed(steps):
        gone = tuple(dict.fromkeys(n for n in (*step.inputs, *step.node.outputs) if n and n not in needed))
        needed.update(gone)
        freed.append(Step(step.node, step.run, step.inputs, gone))
    return tuple(reversed(freed))


def is_weight(spec: TensorSpec, users: Collection[str]) -> bool:
    """Whether a constant that these operators use is a parameter: more than one number, only a factor or summand."""
    return spec.is_float and spec.elements > 1 and bool(users) and _WEIGHTED.issuperset(users)


def place(network: nn.Module, path: str, part: nn.Module | Tensor) -> None:
    """Puts a module, parameter or buffer at a dotted path, with plain modules on the way."""
    *parents, name = path.split(".")
    owner = network
    for parent in parents:
        if parent not in owner._modules:
            owner.add_module(parent, nn.Module())
        owner = owner.get_submodule(parent)
    if isinstance(part, nn.Module):
        owner.add_module(name, part)
    elif isinstance(part, nn.Parameter):
        owner.register_parameter(name, part)
    else:
        owner.register_buffer(name, part)


def fill(module: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """A module made without memory, with these tensors as its parameters and buffers."""
    for name, tensor in tensors.items():
        if name in module._buffers:
            module._buffers[name] = tensor
        else:
            setattr(module, name, nn.Parameter(tensor))  # recurrent modules keep a list of theirs
    for name, buffer in module._buffers.items():
        if buffer is not None and buffer.is_meta:  # a counter of batches, which nothing reads
            module._buffers[name] = torch.zeros(buffer.shape, dtype=buffer.dtype)
    module.train(False)
    return module
