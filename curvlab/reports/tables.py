"""Tables that fit a width: groups of columns are kept together, and what does not fit goes into a next table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from curvlab.analyses.results import FopResult, LayerResult
from curvlab.reports.columns import Column, Group
from curvlab.reports.escape import escape
from curvlab.reports.numbers import ABSENT

NAME = (14, 30)
"""Cells of the column of names: at least, and at most before a group moves to the next table for lack of room."""
GAP = 2
"""Cells between columns."""


@dataclass(frozen=True)
class Filled:
    """A column as it is printed, heading and cells filled up to one width, and the width with the gap before it."""

    heading: str
    cells: tuple[str, ...]
    width: int


Rows = Sequence[LayerResult] | Sequence[FopResult]
"""What a table shows: a result each, all of one type."""
Part = tuple[str, list[Filled]]
"""The title and the columns of one table."""


def print_tables(console: Console, layers: Rows, groups: Sequence[Group]) -> None:
    """One row per layer in as few tables as `console.width` allows; empty columns and rows are left out."""
    names = [escape(layer.name) for layer in layers]
    longest = max(map(cell_len, names), default=0)
    for title, columns in _packed(layers, groups, min(longest, NAME[1]), console.width):
        room = max(NAME[0], console.width - sum(filled.width for filled in columns))
        table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False)
        table.add_column("layer", no_wrap=True, max_width=room)
        for filled in columns:
            table.add_column(filled.heading, no_wrap=True)
        for name, *cells in zip(names, *(filled.cells for filled in columns), strict=True):
            if any(cell.strip() != ABSENT for cell in cells):
                table.add_row(Text(shortened(name, room)), *map(Text, cells))
        console.print(Text(title, "bold"))
        console.print(table)
        console.print()


def shown(group: Group, layers: Rows) -> list[Column]:
    """The columns of the group that are not empty."""
    return [column for column in group.columns if any(column.text(layer) != ABSENT for layer in layers)]


def shortened(name: str, width: int) -> str:
    """`name` in at most `width` characters, its middle replaced by an ellipsis: both ends tell layers apart."""
    if len(name) <= width:
        return name
    head = (width - 1) // 2
    return f"{name[:head]}…{name[head + 1 - width :]}"


def _packed(layers: Rows, groups: Sequence[Group], name: int, width: int) -> Iterator[Part]:
    """Groups joined while they fit beside a name; a group that is too wide alone is cut between columns."""
    titles: list[str] = []
    columns: list[Filled] = []
    used = name
    for group in groups:
        filled = [_filled(column, layers) for column in shown(group, layers)]
        if columns and used + sum(one.width for one in filled) > width:
            yield " · ".join(titles), columns
            titles, columns, used = [], [], name
        for one in filled:
            if columns and used - name + NAME[0] + one.width > width:
                yield " · ".join([*titles, group.title]), columns
                titles, columns, used = [], [], name
            columns.append(one)
            used += one.width
        if filled and group.title not in titles:
            titles.append(group.title)
    if columns:
        yield " · ".join(titles), columns


def _filled(column: Column, layers: Rows) -> Filled:
    texts = [column.title, *_aligned([escape(column.text(layer)) for layer in layers])]
    width = max(map(cell_len, texts))
    blanks = [" " * (width - cell_len(text)) for text in texts]
    heading, *cells = (b + text if column.right else text + b for text, b in zip(texts, blanks, strict=True))
    return Filled(heading, tuple(cells), GAP + width)


def _aligned(cells: Sequence[str]) -> list[str]:
    """Blanks after cells so that, flush right, numbers end where numbers do, with an error or without one."""
    errors = max((len(cell) - cell.index(" ±") for cell in cells if " ±" in cell), default=0)

    def padded(cell: str) -> str:
        if cell == ABSENT or cell.endswith(")"):  # no number, or one with its range in brackets
            return cell
        number, _, error = cell.partition(" ±")
        return f"{number}{f' ±{error}' if error else '':<{errors}}"

    return [padded(cell) for cell in cells]
