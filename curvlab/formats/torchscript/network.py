"""The network of a TorchScript archive: its steps run by Python, its layers modules that can be hooked.

A scripted module takes no hooks, so its graph is read into steps, and the operators that were layers are layers again.
The first batch goes through TorchScript's own network too, and the rebuilt one is used only if both agree, and if a
larger batch is answered as its parts are: tracing bakes the size of its example into reshapes. Loading a TorchScript
archive runs code of the file: only `--trust` comes here.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from curvlab.errors import CheckpointError, CurvlabError, MemoryBudgetError
from curvlab.formats.format import Network
from curvlab.formats.graph_answers import close, interleaved, joined_from, other_examples
from curvlab.formats.raw_checkpoint import RawCheckpoint
from curvlab.formats.torch.pickle_vetting import torch_says
from curvlab.formats.torchscript.graph import Block, Step, jit_operator, refused_kinds, steps_of, tree_of
from curvlab.quoting import listed, quoted, reason

Values = dict[str, Any]

_EXAMPLES = 8
"""How many examples of the first batch are compared with a larger batch."""


class Input(NamedTuple):
    """An argument of a scripted forward: its name, and what stands for it when it is not given."""

    name: str
    default: Any = None
    required: bool = True


def torchscript_network(path: Path, stored: RawCheckpoint, max_memory: int | None) -> Network:
    """The network in a TorchScript archive, in eval mode, or the reason why there is none. Runs code of the file.

    Args:
        path: the archive.
        stored: its tensors, as they were read without running anything.
        max_memory: bytes that the weights may take.

    Raises:
        MemoryBudgetError: the weights take more than `max_memory`.
    """
    held = sum(spec.stored_bytes for spec in stored.specs.values())
    if max_memory is not None and held > max_memory:
        raise MemoryBudgetError(
            f"the network in {quoted(path)} needs {held} bytes", f"--max-memory allows {max_memory}"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            script = torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
            module = ScriptedNetwork(script)
    except CheckpointError as error:
        return Network(notes=(f"weights only: {error}",))
    except Exception as error:  # torch's own reader, and archives without a forward
        return Network(notes=(f"weights only: torch cannot load it ({torch_says(error)})",))
    layers = sorted(
        {type(part).__name__ for part in module.modules() if type(part) is not nn.Module} - {"ScriptedNetwork"}
    )
    notes = (
        f"layers recognised in the TorchScript graph: {', '.join(layers) or 'none'}; "
        "the first batch is compared with TorchScript's own answer",
    )
    return Network(module, "TorchScript graph", notes)


class ScriptedNetwork(nn.Module):
    """A scripted network whose layers are modules: the same parameters, the same answers.

    Args:
        script: what it is made from, and compared with at its first call.

    Raises:
        CheckpointError: the code does something that nothing here can run.
    """

    def __init__(self, script: torch.jit.ScriptModule) -> None:
        super().__init__()
        tree = tree_of(script)
        block = steps_of(script, tree)
        unknown = refused_kinds(block, _KINDS)
        if unknown:
            raise CheckpointError(f"its code uses {listed(unknown)}", "which curvlab cannot run outside of TorchScript")
        for name, part in tree.root.named_children():
            self.add_module(name, part)
        for name, parameter in tree.root.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in tree.root.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        declared = script._c._get_method("forward").schema.arguments[1:]
        self.inputs = tuple(Input(a.name, a.default_value, not a.has_default_value()) for a in declared)
        self.block = block
        self.unchecked = [script]  # in a list: no part of this network

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the script answers.

        Raises:
            CurvlabError: inputs that it does not take or that are missing, or an answer that is not the script's.
        """
        given = {entry.name: value for entry, value in zip(self.inputs, args, strict=False)} | kwargs
        needed = [entry.name for entry in self.inputs if entry.required]
        if len(args) > len(self.inputs) or not {*needed} <= given.keys() <= {entry.name for entry in self.inputs}:
            names = listed(entry.name for entry in self.inputs)
            raise CurvlabError(f"the network takes {names}", f"it was given {len(args) + len(kwargs)} inputs")
        values = [given.get(entry.name, entry.default) for entry in self.inputs]
        answer = self._run(self.block, dict(zip(self.block.inputs, values, strict=True)))
        result = answer[0] if len(answer) == 1 else tuple(answer)
        if self.unchecked:
            self._check(values, result)
        return result

    def _check(self, args: list[Any], result: Any) -> None:
        script = self.unchecked[0]
        dtype = next((p.dtype for p in script.parameters() if p.is_floating_point()), torch.float32)
        same = [a.to("cpu", dtype) if isinstance(a, Tensor) and a.is_floating_point() else a for a in args]
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            expected = script(*same)
        if not close(_on_cpu(result), expected):
            raise CurvlabError(
                "rebuilt from its TorchScript graph, the network does not answer as TorchScript does",
                "its numbers would be those of another network",
                "analyse it without --trust, for its weights",
            )
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            _check_batches(script, same)
        self.unchecked = []

    def _run(self, block: Block, values: Values) -> list[Any]:
        for step in block.steps:
            if step.kind in _KINDS:
                results = _KINDS[step.kind](self, step, values)
            else:
                run = jit_operator(step.kind, step.overload)
                assert run is not None, step.kind  # refused when the network was made
                given = [values[name] for name in step.inputs]
                place = len(given) - len(step.keywords)
                made = run(*given[:place], **dict(zip(step.keywords, given[place:], strict=True)))
                results = (made,) if len(step.outputs) == 1 else made
            for name, result in zip(step.outputs, results or (), strict=False):
                values[name] = result
        return [values[name] for name in block.outputs]

    def _if(self, step: Step, values: Values) -> list[Any]:
        return self._run(step.blocks[0 if values[step.inputs[0]] else 1], values)

    def _loop(self, step: Step, values: Values) -> list[Any]:
        most, going, *carried = (values[name] for name in step.inputs)
        body, turn = step.blocks[0], 0
        while going and turn < most:
            values.update(zip(body.inputs, (turn, *carried), strict=True))
            going, *carried = self._run(body, values)
            turn += 1
        return carried

    def _layer(self, step: Step, values: Values) -> tuple[Any, ...]:
        return (self.get_submodule(step.value)(values[step.inputs[0]]),)

    def _attribute(self, step: Step, values: Values) -> tuple[Any, ...]:
        return (operator.attrgetter(step.value)(self),)

    def _refused(self, step: Step, values: Values) -> tuple[Any, ...]:
        raise CurvlabError(
            f"the code of the TorchScript archive {step.value}",
            "which cannot be followed outside of it",
            "analyse it without --trust, for its weights",
        )


def _check_batches(script: torch.jit.ScriptModule, args: list[Any]) -> None:
    """Raises CurvlabError where f([a, b]) ≠ [f(a), f(b)], if all tensors have the examples on their first axis."""
    sizes = {value.shape[:1] for value in args if isinstance(value, Tensor) and value.ndim}
    if len(sizes) != 1:
        return
    size = min(int(next(iter(sizes))[0]), _EXAMPLES)
    some = [value[:size] if isinstance(value, Tensor) and value.ndim else value for value in args]
    more = other_examples(some, size)
    try:
        answers = [script(*given) for given in (interleaved(some, more, size), some, more)]
    except Exception as error:
        why = f"it fails on batches of other sizes ({reason(error)})"
    else:
        if joined_from(answers[0], answers[1], answers[2], size):
            return
        why = f"it answers {2 * size} examples otherwise than {size} at a time"
    raise CurvlabError(
        "the TorchScript graph is fixed to batches of one size", why, "script the network instead of tracing it"
    )


def _on_cpu(value: Any) -> Any:
    return torch.utils._pytree.tree_map(lambda t: t.detach().cpu() if isinstance(t, Tensor) else t, value)


def _plain(function: Callable[..., Any]) -> Callable[[ScriptedNetwork, Step, Values], tuple[Any, ...]]:
    """A kind whose one result is a function of its inputs' values."""
    return lambda _, step, values: (function(*(values[name] for name in step.inputs)),)


def _spread(_: ScriptedNetwork, step: Step, values: Values) -> tuple[Any, ...]:
    return tuple(values[step.inputs[0]])


def _raise(_: ScriptedNetwork, step: Step, values: Values) -> tuple[Any, ...]:
    raise CurvlabError(f"the network refuses its input: {values[step.inputs[0]]}")


def _item(container: Any, key: Any) -> Any:
    return torch.select(container, 0, key) if isinstance(container, Tensor) else container[key]


def _appended(items: list[Any], item: Any) -> list[Any]:
    items.append(item)
    return items


def _added(a: Any, b: Any, *rest: Any) -> Any:
    if isinstance(a, list) and isinstance(b, list):
        return a + b
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return torch.add(a, b, alpha=rest[0] if rest else 1)
    return a + b


def _sliced(items: Any, *rest: Any) -> Any:
    if isinstance(items, list):
        return items[slice(*rest)]
    return torch.ops.aten.slice.Tensor(items, *rest)


def _times(a: Any, b: Any) -> Any:
    return torch.mul(a, b) if isinstance(a, Tensor) or isinstance(b, Tensor) else a * b


def _formatted(text: str, *values: Any) -> str:
    return text.format(*values)


_KINDS: Mapping[str, Callable[[ScriptedNetwork, Step, Values], Any]] = {
    "constant": lambda _, step, __: (step.value,),
    "layer": ScriptedNetwork._layer,
    "attribute": ScriptedNetwork._attribute,
    "refused": ScriptedNetwork._refused,
    "prim::If": ScriptedNetwork._if,
    "prim::Loop": ScriptedNetwork._loop,
    "prim::ListConstruct": _plain(lambda *items: list(items)),
    "prim::TupleConstruct": _plain(lambda *items: items),
    "prim::DictConstruct": _plain(lambda *items: dict(zip(items[::2], items[1::2], strict=True))),
    "prim::TupleUnpack": _spread,
    "prim::ListUnpack": _spread,
    "prim::TupleIndex": _plain(_item),
    "prim::RaiseException": _raise,
    "prim::unchecked_cast": _plain(lambda value: value),
    "prim::unchecked_unwrap_optional": _plain(lambda value: value),
    "prim::Uninitialized": lambda _, step, __: (None,),
    "prim::NumToTensor": _plain(torch.tensor),
    "prim::min": _plain(min),
    "prim::max": _plain(max),
    "aten::__is__": _plain(lambda a, b: a is b),
    "aten::__isnot__": _plain(lambda a, b: a is not b),
    "aten::__not__": _plain(lambda a: not a),
    "aten::__getitem__": _plain(_item),
    "aten::__contains__": _plain(lambda container, item: item in container),
    "aten::append": _plain(_appended),
    "aten::add": _plain(_added),
    "aten::mul": _plain(_times),
    "aten::slice": _plain(_sliced),
    "aten::extend": _plain(lambda items, more: items.extend(more)),
    "aten::pop": _plain(lambda items, *place: items.pop(*place)),
    "aten::copy": _plain(list),
    "aten::len": _plain(len),
    "aten::size": _plain(lambda x, *axis: x.size(*axis) if axis else list(x.shape)),
    "aten::format": _plain(_formatted),
    "aten::warn": lambda _, __, ___: (),
    "aten::Int": _plain(int),
    "aten::Float": _plain(float),
    "aten::Bool": _plain(bool),
    **dict.fromkeys(("aten::IntImplicit", "aten::FloatImplicit", "aten::ScalarImplicit"), _plain(lambda t: t.item())),
    "aten::str": _plain(str),
    "aten::list": _plain(list),
}
