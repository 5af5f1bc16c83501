"""Networks as data: a tree of allow-listed torch modules with literal constructor arguments, stored as JSON.

`describe` writes the tree, `build` makes the network again. Nothing in a description is code: a type is a key of a
table, an argument is a number, a text, a truth value or a list of them. A module that is used in several places is
described once and then referred to, so that it is one module again after `build`.

    {"type": "Sequential",
     "children": [["0", {"type": "Linear", "arguments": {"in_features": 3, …}}], ["1", {"same": "0"}]]}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from curvlab.errors import CheckpointError
from curvlab.formats.curvlab_file.allowed_modules import ARGUMENTS
from curvlab.formats.curvlab_file.builders import build_registered, recorded_builder
from curvlab.quoting import quoted, reason

Description = dict[str, Any]

VERSION = 1
MAX_DEPTH = 64
MAX_MODULES = 10_000
MAX_TENSORS = 20_000
MAX_ITEMS = 64  # in one list argument
# Sizes beyond these are no network's; most constructors only compute with them, but num_layers is a loop.
MAX_SIZE = 2**31
MAX_LAYERS = 1_000
GIVE_ARCHITECTURE = "give --architecture package.module:callable, or get the file from its author again"


def describe(module: nn.Module) -> Description:
    """The description of a network of known modules, or of one that a registered builder made.

    Raises:
        CheckpointError: a module of another class, or one whose `forward` was replaced; the sentence says what to give
            instead.
    """
    made = recorded_builder(module)
    if made is None or getattr(nn, type(module).__name__, None) is type(module):
        return {"version": VERSION, "network": _described(module, "", {})}
    arguments = {name: _jsonable(value) for name, value in made["arguments"].items()}
    description = {"version": VERSION, "builder": made["builder"], "arguments": arguments}
    with torch.device("meta"):
        again = build(description)
    # What was changed after the builder made it would be lost.
    if repr(again) != repr(module) or any("forward" in vars(part) for part in module.modules()):
        raise _not_describable(module, "")
    return description


def build(description: Description) -> nn.Module:
    """The network a description stands for, on the current default device, with fresh weights.

    Under `torch.device("meta")` nothing is allocated, whatever the description says.

    Raises:
        CheckpointError: anything in it is not as `describe` writes it.
    """
    if not isinstance(description, dict) or description.get("version") != VERSION:
        raise _invalid("it has no version that curvlab knows")
    if "builder" in description:
        return build_registered(description["builder"], _literals(description.get("arguments", {}), "the builder"))
    return _Construction().module(description.get("network"), "")


def _described(module: nn.Module, path: str, seen: dict[int, str]) -> Description:
    if id(module) in seen:
        return {"same": seen[id(module)]}
    seen[id(module)] = path
    kind = type(module).__name__
    if "forward" in vars(module) or getattr(nn, kind, None) is not type(module):
        raise _not_describable(module, path)
    if type(module) is nn.Sequential:
        children = [
            [name, _described(child, _join(path, name), seen)]
            for name, child in module._modules.items()
            if child is not None
        ]
        return {"type": kind, "children": children}
    if kind not in ARGUMENTS:
        raise _not_describable(module, path)
    return {"type": kind, "arguments": {name: _argument(module, name) for name in ARGUMENTS[kind]}}


def _argument(module: nn.Module, name: str) -> Any:
    value = getattr(module, name)
    if name == "bias" and not isinstance(value, bool):
        return value is not None
    return _jsonable(value)


def _jsonable(value: Any) -> Any:
    return [_jsonable(item) for item in value] if isinstance(value, tuple | list) else value


class _Construction:
    """One `build`: the modules made so far by path, and how many tensors they have."""

    def __init__(self) -> None:
        self.made: dict[str, nn.Module] = {}
        self.tensors = 0

    def module(self, node: Any, path: str) -> nn.Module:
        if not isinstance(node, dict) or path.count(".") > MAX_DEPTH or len(self.made) > MAX_MODULES:
            raise _invalid(f"{quoted(path)} is no module, lies too deep or comes after too many")
        if "same" in node:
            if not isinstance(node["same"], str) or node["same"] not in self.made:
                raise _invalid(f"{quoted(path)} refers to {quoted(node['same'])}, which is not before it")
            return self.made[node["same"]]
        made = self._sequence(node, path) if node.get("type") == "Sequential" else self._layer(node, path)
        self.made[path] = made
        return made

    def _layer(self, node: Description, path: str) -> nn.Module:
        kind, arguments = node.get("type"), _literals(node.get("arguments"), path)
        if not isinstance(kind, str) or kind not in ARGUMENTS:
            raise _invalid(f"{quoted(path)} is of the type {quoted(kind)}, which is not one of curvlab's")
        if not arguments.keys() <= {*ARGUMENTS[kind]}:
            raise _invalid(f"{quoted(path)} ({kind}) has arguments that it does not take")
        try:
            layer: nn.Module = getattr(nn, kind)(**arguments)
        except TypeError:
            raise _invalid(
                f"{quoted(path)} ({kind}) cannot be made: its arguments are not those of the layer"
            ) from None
        except (ValueError, RuntimeError, MemoryError, AssertionError, ArithmeticError) as error:
            raise _invalid(f"{quoted(path)} ({kind}) cannot be made: {reason(error)}") from None
        self.tensors += len(layer.state_dict())
        if self.tensors > MAX_TENSORS:
            raise _invalid(f"it has more than {MAX_TENSORS} tensors")
        return layer

    def _sequence(self, node: Description, path: str) -> nn.Module:
        sequence, children = nn.Sequential(), node.get("children")
        if not isinstance(children, list):
            raise _invalid(f"{quoted(path)} has no list of children")
        for child in children:
            if not (isinstance(child, list) and len(child) == 2 and isinstance(child[0], str)):
                raise _invalid(f"{quoted(path)} has a child that is no pair of name and module")
            name, inner = child
            # A name may not be empty, dotted, taken, or an attribute of the container such as "forward".
            if not name or "." in name or hasattr(sequence, name):
                raise _invalid(f"{quoted(path)} has a child with the impossible name {quoted(name)}")
            sequence.add_module(name, self.module(inner, _join(path, name)))
        return sequence


def _literals(arguments: Any, path: str) -> dict[str, Any]:
    if not isinstance(arguments, Mapping):
        raise _invalid(f"{quoted(path)} has no table of arguments")
    return {name: _literal(value, _join(path, name)) for name, value in arguments.items()}


def _literal(value: Any, path: str) -> Any:
    if isinstance(value, list) and len(value) <= MAX_ITEMS and not any(isinstance(item, list) for item in value):
        return tuple(_literal(item, path) for item in value)
    most = MAX_LAYERS if path.endswith("num_layers") else MAX_SIZE
    if value is None or isinstance(value, bool | str) or (isinstance(value, int | float) and abs(value) <= most):
        return value
    raise _invalid(f"{quoted(path)} is {quoted(value)}, beyond what an argument can be")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _invalid(why: str) -> CheckpointError:
    return CheckpointError("the recorded architecture is not valid", why, GIVE_ARCHITECTURE)


def _not_describable(module: nn.Module, path: str) -> CheckpointError:
    where = f"{quoted(path)} is" if path else "the network is"
    kind = f"{type(module).__module__}.{type(module).__qualname__}"
    return CheckpointError(
        f"{where} of the class {quoted(kind)}",
        "curvlab can record only networks made of torch's own layers in nn.Sequential",
        'give architecture="package.module:callable"',
    )
