"""Records: rows of raw values for programs, as CSV and data frames hold them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Records:
    """Rows of plain values under names; None where a row has no such value.

    Attributes:
        columns: names, each once.
        rows: as many values each as there are columns.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


def records(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Records:
    """The rows under `columns`, without names that are the beginning of another's path ("fop.kernel" of
    "fop.kernel.0")."""
    inner = {name.rpartition(".")[0] for name in columns}
    kept = tuple(name for name in columns if name not in inner)
    return Records(kept, tuple(tuple(row.get(name) for name in kept) for row in rows))


def leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """(path, plain value) for everything below `value`; a section that was not computed (None) has nothing below."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from leaves(f"{path}.{key}", item)
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from leaves(f"{path}.{place}", item)
    elif value is not None or "." in path:
        yield path, value
