"""The weights inside whatever a training script saved: wrappers taken off, optimizer state left out, nesting made flat.

Steps, each of which leaves a note for the user: unwrap the well-known keys (`state_dict`, `model`, …) as often as they
occur, then a lone dictionary; flatten with dots, leaving out the trees of optimizers and schedulers; keep one name of
each tied tensor and remember the others as aliases.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from curvlab.errors import CheckpointError
from curvlab.formats.dtypes import TensorSpec
from curvlab.formats.names import MAX_NAME
from curvlab.quoting import listed, quoted

# In the order of preference: of two, the averaged weights are the ones that authors evaluate.
WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "params_ema",
    "params",
    "ema",
    "module",
    "weights",
)
_TRAINING_STATE = re.compile(
    r"(?:.*_)?(?:optim|optimi[sz]ers?|opt|(?:lr_?)?schedulers?|(?:grad_?|amp_?|loss_?)?scaler|rng|callbacks?|loops)"
    r"(?:_(?:states?|dicts?))*",
    re.IGNORECASE,
)
MAX_DEPTH = 32
MAX_VALUES = 1_000_000


@dataclass
class StateDict:
    """Flat weights: name -> shape and type, name -> how to read it, second names of tied tensors, what was done."""

    specs: dict[str, TensorSpec] = field(default_factory=dict)
    readers: dict[str, Callable[[], Tensor]] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def state_dict_of(path: Path, tree: Any) -> StateDict:
    """The weights in a loaded checkpoint of any shape.

    Args:
        path: for the sentences of errors.
        tree: nested dictionaries, lists and tuples with tensors somewhere in them.

    Raises:
        CheckpointError: nested or repeated without end, two tensors of one name.
    """
    found = StateDict()
    tree = _unwrapped(tree, found.notes)
    left_out: list[str] = []
    first_name: dict[tuple[Any, ...], str] = {}
    for name, tensor in _flat(path, tree, left_out):
        if name in found.specs or name in found.aliases:
            raise CheckpointError(
                f"{quoted(path)} holds two tensors named {quoted(name)}", do="save it with unique names"
            )
        if tensor.layout is not torch.strided or tensor.device.type != "cpu":
            left_out.append(name)
            continue
        kept = first_name.setdefault(_identity(tensor, name), name)
        if kept != name:
            found.aliases[name] = kept
            continue
        plain = tensor.dtype if not tensor.is_quantized else "float32"
        found.specs[name] = TensorSpec(tuple(tensor.shape), str(plain).removeprefix("torch."))
        found.readers[name] = partial(_plain, tensor)
    if left_out:
        found.notes.append(f"left out, not weights: {listed(left_out)}")
    return found


def _unwrapped(tree: Any, notes: list[str]) -> Any:
    for _ in range(MAX_DEPTH):
        if not isinstance(tree, Mapping):
            break
        inner = {key: value for key, value in tree.items() if isinstance(value, Mapping) and _holds_tensors(value)}
        key = next((wrapper for wrapper in WRAPPERS if wrapper in inner), None)
        if key is None:
            candidates = [key for key in inner if not _is_training_state(key)]
            direct = any(_is_tensor(value) for value in tree.values())
            if direct or len(candidates) != 1:
                break
            key = candidates[0]
        beside = [other for other, value in tree.items() if other != key and (_is_tensor(value) or other in inner)]
        notes.append(f"weights taken from {quoted(key)}" + (f", beside it are {listed(beside)}" if beside else ""))
        tree = tree[key]
    return tree


def _holds_tensors(tree: Mapping[Any, Any]) -> bool:
    """A tensor lies in it, or one level deeper: enough to tell weights from settings without walking the whole tree."""
    return any(
        _is_tensor(value) or (isinstance(value, Mapping) and any(map(_is_tensor, value.values())))
        for value in tree.values()
    )


def _flat(path: Path, tree: Any, left_out: list[str]) -> Iterator[tuple[str, Tensor]]:
    """(dotted name, tensor) in the order of the dictionaries; containers that hold themselves are walked once."""
    visited = 0

    def walk(prefix: str, value: Any, above: tuple[int, ...]) -> Iterator[tuple[str, Tensor]]:
        nonlocal visited
        visited += 1
        if visited > MAX_VALUES or len(above) > MAX_DEPTH:
            raise CheckpointError(f"{quoted(path)} nests its values without end", "that is no state dictionary")
        if _is_tensor(value):
            yield prefix, value
        elif isinstance(value, Mapping | list | tuple) and id(value) not in above:
            items = value.items() if isinstance(value, Mapping) else enumerate(value)
            for key, inner in items:
                name = f"{prefix}.{_text(key)}" if prefix else _text(key)
                if len(name) > MAX_NAME:
                    raise CheckpointError(f"{quoted(path)} has a name of {len(name)} characters, {quoted(name)}")
                if isinstance(inner, Mapping | list | tuple) and _is_training_state(key):
                    left_out.append(name)
                else:
                    yield from walk(name, inner, (*above, id(value)))

    return walk("", tree, ())


def _is_training_state(key: Any) -> bool:
    return isinstance(key, str) and _TRAINING_STATE.fullmatch(key) is not None


def _text(key: Any) -> str:
    return key.decode("latin-1") if isinstance(key, bytes) else str(key)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _identity(tensor: Tensor, name: str) -> tuple[Any, ...]:
    """Equal for two names of the same memory seen in the same way; an empty tensor has no memory to share."""
    if tensor.numel() == 0:
        return (name,)
    place = (tensor.untyped_storage().data_ptr(), tensor.storage_offset())
    return (*place, tuple(tensor.shape), tensor.stride(), tensor.dtype)


def _plain(tensor: Tensor) -> Tensor:
    return tensor.dequantize() if tensor.is_quantized else tensor.detach()
