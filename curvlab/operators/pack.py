"""Operators as plain data (tensors, numbers, strings, lists, dictionaries) and back, for files and state dicts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from torch import Tensor

from curvlab.errors import CheckpointError
from curvlab.operators.operator import Operator

_TYPE = "operator"


def pack(operator: Operator) -> dict[str, Any]:
    """{"operator": its type's name, field: value, …}, operators inside operators alike, tuples as lists.

    The tensors are those of the operator, not copies. `torch.load(..., weights_only=True)` reads the result.

    Raises:
        TypeError: a field holds something else than tensors, numbers, None, operators or tuples of these.
    """
    packed = {field.name: _packed(getattr(operator, field.name)) for field in fields(operator)}  # type: ignore[arg-type]
    return {_TYPE: type(operator).__name__, **packed}


def unpack(packed: dict[str, Any]) -> Operator:
    """The operator that `pack` was given; types from outside are known once their module is imported.

    Raises:
        CheckpointError: no operator has that name, or not those fields.
    """
    names = {kind.__name__: kind for kind in _kinds(Operator)}  # type: ignore[type-abstract]
    kind = names.get(packed.get(_TYPE, ""))
    values = {name: _unpacked(value) for name, value in packed.items() if name != _TYPE}
    try:
        if kind is None:
            raise TypeError(f"known are {', '.join(sorted(names))}")
        return kind(**values)
    except (TypeError, ValueError) as error:
        found = f"saved state holds an operator {packed.get(_TYPE)!r} that cannot be made"
        raise CheckpointError(found, str(error)) from error


def _packed(value: Any) -> Any:
    if isinstance(value, Operator):
        return pack(value)
    if isinstance(value, tuple):
        return [_packed(one) for one in value]
    if value is None or isinstance(value, Tensor | float | int):
        return value
    raise TypeError(f"pack: {type(value).__name__} is no plain data")


def _unpacked(value: Any) -> Any:
    if isinstance(value, dict):
        return unpack(value)
    return tuple(_unpacked(one) for one in value) if isinstance(value, list) else value


def _kinds(kind: type[Operator]) -> Iterator[type[Operator]]:
    for child in kind.__subclasses__():
        yield child
        yield from _kinds(child)
