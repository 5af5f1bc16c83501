"""The arguments of a call, leaf by leaf: those in lists and mappings too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any


def replaced(part: Any, by: Callable[[Any], Any]) -> Any:
    """Arguments with every leaf changed."""
    if isinstance(part, tuple | list):
        return (
            type(part)(*(replaced(one, by) for one in part))
            if hasattr(part, "_fields")
            else type(part)([replaced(one, by) for one in part])
        )
    if isinstance(part, Mapping):
        return {key: replaced(one, by) for key, one in part.items()}
    return by(part)


def leaves(part: Any) -> Iterator[Any]:
    """What is in no list and no mapping."""
    if isinstance(part, tuple | list):
        for one in part:
            yield from leaves(one)
    elif isinstance(part, Mapping):
        for one in part.values():
            yield from leaves(one)
    else:
        yield part
