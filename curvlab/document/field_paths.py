"""The paths of the numbers in a frozen result, from its fields alone: `condition_number.lnb`, `modes.0.rank`."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator
from typing import Any


def field_paths(kind: type) -> tuple[str, ...]:
    """Dotted paths of all numbers in a dataclass and the dataclasses in it, in the order of its fields.

    The first element stands for all of a tuple; what is below a mapping is not known, and the mapping itself is named
    with a trailing `.…`.
    """
    return tuple(_paths(kind, ""))


def _paths(kind: type, prefix: str) -> Iterator[str]:
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        yield from _below(hints[field.name], f"{prefix}{field.name}")


def _below(hint: Any, path: str) -> Iterator[str]:
    for option in typing.get_args(hint) if _is_union(hint) else (hint,):
        origin = typing.get_origin(option)
        if dataclasses.is_dataclass(option) and isinstance(option, type):
            yield from _paths(option, f"{path}.")
        elif origin is tuple:
            yield from _below(typing.get_args(option)[0], f"{path}.0")
        elif origin is not None:
            yield f"{path}.…"
        elif option in (int, float, bool):
            yield path


def _is_union(hint: Any) -> bool:
    return isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
