"""Tables that fit a width: groups of columns are kept together, and what does not fit goes into a next table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.table import Table as RichTable
from rich.text import Text

from curvlab.document.numbers import ABSENT
from curvlab.document.table import Column, Table
from curvlab.quoting import printable

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


Part = tuple[str, RichTable]
"""The title and the content of one table on the page; no title where its groups have none."""


def laid_out(table: Table, width: int) -> Iterator[Part]:
    """The table in as few parts as a page of `width` cells allows; none where it may not be cut and does not fit."""
    if table.cut == "text":
        yield "", _folded(table)
        return
    names = [printable(name) for name in table.names]
    longest = max(map(cell_len, names), default=0)
    parts = list(_packed(table, min(longest, NAME[1]), width))
    if table.cut == "never" and (len(parts) > 1 or _too_wide(longest, parts, width)):
        return
    for title, columns in parts:
        room = max(NAME[0], width - sum(filled.width for filled in columns))
        drawn = RichTable(box=None, padding=(0, GAP, 0, 0), pad_edge=False)
        drawn.add_column(printable(table.heading), no_wrap=True, max_width=room)
        for filled in columns:
            drawn.add_column(filled.heading, no_wrap=True)
        for name, *cells in zip(names, *(filled.cells for filled in columns), strict=True):
            if not table.sparse or any(cell.strip() != ABSENT for cell in cells):
                drawn.add_row(Text(shortened(name, room)), *map(Text, cells))
        yield title, drawn


def shortened(name: str, width: int) -> str:
    """`name` in at most `width` characters, its middle replaced by an ellipsis: both ends tell layers apart."""
    if len(name) <= width:
        return name
    head = (width - 1) // 2
    return f"{name[:head]}…{name[head + 1 - width :]}"


def _folded(table: Table) -> RichTable:
    """All columns side by side, long texts over several lines."""
    drawn = RichTable(box=None, padding=(0, GAP, 0, 0), pad_edge=False)
    columns = [column for group in table.groups for column in group.columns]
    drawn.add_column(printable(table.heading), no_wrap=True, overflow="fold")
    for column in columns:
        drawn.add_column(printable(column.title), overflow="fold")
    for name, *cells in zip(table.names, *(column.cells for column in columns), strict=True):
        drawn.add_row(*(Text(printable(cell)) for cell in (name, *cells)))
    return drawn


def _too_wide(longest: int, parts: Sequence[tuple[str, list[Filled]]], width: int) -> bool:
    return any(longest + sum(filled.width for filled in columns) > width for _, columns in parts)


def _packed(table: Table, name: int, width: int) -> Iterator[tuple[str, list[Filled]]]:
    """Groups joined while they fit beside a name; a group that is too wide alone is cut between columns."""
    titles: list[str] = []
    columns: list[Filled] = []
    used = name
    for group in table.groups:
        filled = [_filled(column) for column in group.columns]
        if columns and used + sum(one.width for one in filled) > width:
            yield " · ".join(titles), columns
            titles, columns, used = [], [], name
        for one in filled:
            if columns and used - name + NAME[0] + one.width > width:
                yield " · ".join(dict.fromkeys(title for title in (*titles, group.title) if title)), columns
                titles, columns, used = [], [], name
            columns.append(one)
            used += one.width
        if filled and group.title and group.title not in titles:
            titles.append(group.title)
    if columns:
        yield " · ".join(titles), columns


def _filled(column: Column) -> Filled:
    texts = [printable(column.title), *_aligned([printable(cell) for cell in column.cells])]
    width = max(map(cell_len, texts))
    blanks = [" " * (width - cell_len(text)) for text in texts]
    right = column.align == "right"
    heading, *cells = (b + text if right else text + b for text, b in zip(texts, blanks, strict=True))
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
