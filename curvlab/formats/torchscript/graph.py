"""TorchScript code as plain steps: what a scripted `forward` does, node by node, with its layers found.

`steps_of` reads the inlined graph into `Step`s that can be copied and run by Python, so that layers become modules that
can be hooked; `Tree` is the module tree they belong to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from curvlab.formats.rebuilt_layers import INPUT, OPERATORS, rebuilt

_AXES = {"1": 3, "2": 4, "3": 5}  # of the output of BatchNorm1d, 2d, 3d


@dataclass(frozen=True)
class Block:
    """A sequence of steps with its own inputs and outputs, by the names of values."""

    inputs: tuple[str, ...]
    steps: tuple[Step, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """One operation: its kind ("aten::relu", "layer", "attribute", …), names of values, and what belongs to the kind.

    Attributes:
        kind: the node's kind, or "layer", "attribute", "constant" for those that were resolved.
        inputs: names of the values it takes.
        outputs: names of the values it gives.
        value: of "constant" the value; of "layer" and "attribute" the dotted name in the network; of `prim::TupleIndex`
            and the like nothing.
        blocks: of If and Loop.
        overload: which of the operators of that name it is.
        keywords: names of its last arguments, those that are given by keyword.
    """

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    value: Any = None
    blocks: tuple[Block, ...] = ()
    overload: str = ""
    keywords: tuple[str, ...] = ()


@dataclass
class Tree:
    """The module tree of a script, with tensors of its own kind, and attributes that are no tensors.

    Attributes:
        root: modules without a forward, named as the script's.
        plain: dotted name -> attribute that is no tensor and no module.
        kinds: dotted name of a module -> the class it was scripted from ("Conv2d").
    """

    root: nn.Module
    plain: dict[str, Any] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)


def tree_of(script: torch.jit.ScriptModule) -> Tree:
    """Holders for all parameters and buffers of a script; what is one tensor there is one here."""
    tree, made = Tree(nn.Module()), {}
    for name, part in script.named_modules():
        tree.kinds[name] = str(getattr(part, "original_name", ""))
        here = tree.root if not name else nn.Module()
        if name:
            owner, _, last = name.rpartition(".")
            tree.root.get_submodule(owner).add_module(last, here)
        for role, parameter in part.named_parameters(recurse=False):
            key = (parameter.data_ptr(), parameter.shape, parameter.stride())
            trained = parameter.is_floating_point()
            if key not in made:
                made[key] = nn.Parameter(parameter.detach(), requires_grad=trained)
            here.register_parameter(role, made[key])
        for role, buffer in part.named_buffers(recurse=False):
            here.register_buffer(role, buffer)
    return tree


def steps_of(script: torch.jit.ScriptModule, tree: Tree) -> Block:
    """The steps of `script.forward`, methods and functions inlined; layers are put into `tree` on the way.

    A node that reaches its module in a way that is not known beforehand becomes a step of kind "refused".
    """
    graph = script.forward.graph.copy() if hasattr(script.forward, "graph") else script.graph.copy()
    torch._C._jit_pass_inline(graph)
    torch._C._jit_pass_constant_propagation(graph)  # settings that the code works out from numbers
    first, *rest = list(graph.inputs())
    reader = _Reader(script, tree, {first.debugName(): ""})
    return Block(
        tuple(value.debugName() for value in rest),
        tuple(reader.steps(graph)),
        tuple(value.debugName() for value in graph.outputs()),
    )


class _Reader:
    """One walk over a graph. `paths` knows which values are modules; `known` those whose value is fixed."""

    def __init__(self, script: torch.jit.ScriptModule, tree: Tree, paths: dict[str, str]) -> None:
        self.script, self.tree, self.paths = script, tree, paths
        self.known: dict[str, Any] = {}
        self.attributes: dict[str, str] = {}  # value -> dotted name of the tensor it is

    def steps(self, graph: Any) -> Iterator[Step]:
        for node in graph.nodes():
            step = self._step(node)
            if step is not None:
                yield step

    def _step(self, node: Any) -> Step | None:
        kind = node.kind()
        inputs = tuple(value.debugName() for value in node.inputs())
        outputs = tuple(value.debugName() for value in node.outputs())
        if kind == "prim::Constant":
            return self._constant(node, outputs)
        if kind == "prim::GetAttr":
            return self._attribute(node, inputs[0], outputs)
        if kind in ("prim::CallMethod", "prim::SetAttr"):
            what = (
                f"calls {node.s('name')}" if kind == "prim::CallMethod" else f"changes its attribute {node.s('name')}"
            )
            return Step("refused", (), outputs, what)
        if kind == "prim::ListConstruct" and all(name in self.known for name in inputs):
            self.known[outputs[0]] = [self.known[name] for name in inputs]
        operator = kind.removeprefix("aten::")
        if operator in OPERATORS:
            layer = self._layer(node, operator, inputs, outputs)
            if layer is not None:
                return layer
        blocks = tuple(
            Block(
                tuple(value.debugName() for value in block.inputs()),
                tuple(self.steps(block)),
                tuple(value.debugName() for value in block.outputs()),
            )
            for block in node.blocks()
        )
        if node.schema() == "(no schema)":
            return Step(kind, inputs, outputs, blocks=blocks)
        schema = torch._C.parse_schema(node.schema())
        keywords = tuple(argument.name for argument in schema.arguments[: len(inputs)] if argument.kwarg_only)
        return Step(kind, inputs, outputs, None, blocks, schema.overload_name, keywords)

    def _constant(self, node: Any, outputs: tuple[str, ...]) -> Step:
        value = node.output().toIValue()
        if isinstance(value, Tensor):
            # As a buffer it moves with the network's type and device.
            name = f"constant_{len(self.attributes)}"
            self.tree.root.register_buffer(name, value)
            self.attributes[outputs[0]] = name
            return Step("attribute", (), outputs, name)
        self.known[outputs[0]] = value
        return Step("constant", (), outputs, value)

    def _attribute(self, node: Any, owner: str, outputs: tuple[str, ...]) -> Step | None:
        if owner not in self.paths:
            return Step("refused", (), outputs, "looks for a module that is chosen while it runs")
        base, role = self.paths[owner], node.s("name")
        name = f"{base}.{role}" if base else role
        holder = self.tree.root.get_submodule(base)
        if name in self.tree.kinds:
            self.paths[outputs[0]] = name
            return None
        if role in holder._parameters or role in holder._buffers:
            self.attributes[outputs[0]] = name
            return Step("attribute", (), outputs, name)
        scripted = self.script
        for part in base.split(".") if base else []:
            scripted = getattr(scripted, part)
        value = False if role == "training" else getattr(scripted, role)
        if isinstance(value, Tensor):
            holder.register_buffer(role, value)
            self.attributes[outputs[0]] = name
            return Step("attribute", (), outputs, name)
        self.known[outputs[0]] = value
        return Step("constant", (), outputs, value)

    def _layer(self, node: Any, operator: str, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Step | None:
        schema = torch._C.parse_schema(node.schema())
        given: dict[str, Any] = {}
        flowing = None
        for argument, name in zip(schema.arguments, inputs, strict=False):
            if argument.name == INPUT.get(operator, "input"):
                flowing = name
            elif name in self.known:
                given[argument.name] = self.known[name]
            elif name in self.attributes:
                given[argument.name] = _get(self.tree.root, self.attributes[name])
            else:
                return None  # computed while it runs
        weight = next((inputs[i] for i, a in enumerate(schema.arguments) if a.name == "weight" and i < len(inputs)), "")
        if flowing is None or weight not in self.attributes:
            return None
        for role in ("weight", "bias"):  # a frozen archive has its weights among the constants
            if isinstance(given.get(role), Tensor) and given[role].is_floating_point():
                given[role] = self._parameter(given[role])
        place = self.attributes[weight]
        owner = place.rpartition(".")[0]
        digit = re.search(r"BatchNorm([123])d", self.tree.kinds.get(owner, ""))
        module = rebuilt(operator, given, _AXES[digit[1]] if digit else None)
        if module is None:
            return None
        return Step("layer", (flowing,), outputs, self._placed(owner, place, module))

    def _parameter(self, tensor: Tensor) -> nn.Parameter:
        return tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor)

    def _placed(self, owner: str, weight: str, module: nn.Module) -> str:
        """The layer takes the place of the holder of its parameters, if it holds nothing else."""
        root = self.tree.root
        here = root.get_submodule(owner)
        if owner in self.tree.taken and repr(here) == repr(module) and _tensors(here) == _tensors(module):
            return owner
        alone = next(here.children(), None) is None and _tensors(here) <= _tensors(module)
        if owner and type(here) is nn.Module and alone:
            for role, buffer in here._buffers.items():
                if module._buffers.get(role) is None:
                    module.register_buffer(role, buffer)
        else:
            owner = f"{weight.replace('.', '_')}_{type(module).__name__}".lower()
            while hasattr(root, owner):
                owner += "_"
        parent, _, last = owner.rpartition(".")
        root.get_submodule(parent).add_module(last, module)
        self.tree.taken.add(owner)
        return owner


def _get(root: nn.Module, name: str) -> Any:
    owner, _, last = name.rpartition(".")
    return getattr(root.get_submodule(owner), last)


def _tensors(module: nn.Module) -> set[int]:
    """The floating-point tensors of a module, counters left aside."""
    return {id(t) for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()}


def refused_kinds(block: Block, known: Collection[str]) -> list[str]:
    """Kinds of nodes that nothing here can run."""
    found = {
        step.kind for step in block.steps if step.kind not in known and jit_operator(step.kind, step.overload) is None
    }
    return sorted(found.union(*(refused_kinds(inner, known) for step in block.steps for inner in step.blocks)))


@cache
def jit_operator(kind: str, overload: str) -> Callable[..., Any] | None:
    """TorchScript's own operator of that name; None where there is none."""
    try:
        found = torch._C._get_operation_overload(kind, overload)
    except RuntimeError:
        return None
    return found if found is None else found[0]
