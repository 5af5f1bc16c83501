"""Tables that fit a width: groups of columns are kept together, and what does not fit goes into a next table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.table import Table as RichTable
from rich.text import Text

from curvlab.document.numbers import ABSENT
from curvlab.document.table import Column, Table
from curvlab.quoting import printable
from curvlab.reports.shown_names import ShownNames, shown_names

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
    names: bool = False


Part = tuple[str, Text | RichTable]
"""The title and the content of one table on the page; no title where its groups have none."""


def laid_out(table: Table, width: int) -> Iterator[Part]:
    """The table in as few parts as a page of `width` cells allows; none where it may not be cut and does not fit.

    Names are made short by what all of them share, which the title then tells, and stay different from each other.
    """
    if table.cut == "text":
        yield "", _folded(table)
        return
    inside = shown_names(_names_inside(table), NAME[1])
    columns = {id(column): _filled(column, inside) for group in table.groups for column in group.columns}
    parts = list(_packed(table, columns, _longest(shown_names(table.names, NAME[1]).texts), width))
    whole = _longest({name: printable(name) for name in table.names})
    if table.cut == "never" and (len(parts) > 1 or _too_wide(whole, parts, width)):
        return
    for title, filled in parts:
        room = max(NAME[0], width - sum(one.width for one in filled))
        names = shown_names(table.names, room)
        drawn = _drawn(table, names.texts, filled, width)
        notes = [names.note(), *(inside.note() for one in filled[:1] if any(one.names for one in filled))]
        yield _title(title, [note for note in dict.fromkeys(notes) if note]), drawn


def _drawn(table: Table, names: Mapping[str, str], filled: Sequence[Filled], width: int) -> Text:
    """The heading and the rows, one line each: a table of rich's takes a minute for 50,000 rows."""
    room = max(map(cell_len, (printable(table.heading), *names.values())))
    heading = _line(printable(table.heading), [one.heading for one in filled], room, width)
    lines = [
        _line(names[name], cells, room, width)
        for name, *cells in zip(table.names, *(one.cells for one in filled), strict=True)
        if not table.sparse or any(cell.strip() != ABSENT for cell in cells)
    ]
    return Text("\n").join([Text(heading, "table.header"), *([Text("\n".join(lines))] if lines else [])])


def _line(name: str, cells: Sequence[str], room: int, width: int) -> str:
    """Cells that are filled up already, behind a name that is filled up to `room`; cut where a page is too narrow."""
    gap = " " * GAP
    line = gap.join([name + " " * (room - cell_len(name)), *cells]).rstrip()
    return line if cell_len(line) <= width else set_cell_size(line, width)


def _names_inside(table: Table) -> Iterator[str]:
    """The names that are cells."""
    named = (column for group in table.groups for column in group.columns if column.names)
    yield from (cell for column in named for cell in column.cells if cell != ABSENT)


def _longest(texts: Mapping[str, str]) -> int:
    return max(map(cell_len, texts.values()), default=0)


def _title(title: str, notes: Sequence[str]) -> str:
    """The title with what must be known to read the names below it."""
    if not notes:
        return title
    return f"{title} ({'; '.join(notes)})" if title else f"names {'; '.join(notes)}"


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


def _packed(table: Table, drawn: Mapping[int, Filled], name: int, width: int) -> Iterator[tuple[str, list[Filled]]]:
    """Groups joined while they fit beside a name; a group that is too wide alone is cut between columns."""
    titles: list[str] = []
    columns: list[Filled] = []
    used = name
    for group in table.groups:
        filled = [drawn[id(column)] for column in group.columns]
        if columns and used + sum(one.width for one in filled) > width:
            yield " · ".join(titles), columns
            titles, columns, used = [], [], name
        for one in filled:
            if columns and used - name + min(name, NAME[0]) + one.width > width:
                yield " · ".join(dict.fromkeys(title for title in (*titles, group.title) if title)), columns
                titles, columns, used = [], [], name
            columns.append(one)
            used += one.width
        if filled and group.title and group.title not in titles:
            titles.append(group.title)
    if columns:
        yield " · ".join(titles), columns


def _filled(column: Column, inside: ShownNames) -> Filled:
    shown = [inside.texts.get(cell, cell) if column.names else printable(cell) for cell in column.cells]
    texts = [printable(column.title), *_aligned(shown)]
    width = max(map(cell_len, texts))
    blanks = [" " * (width - cell_len(text)) for text in texts]
    right = column.align == "right"
    heading, *cells = (b + text if right else text + b for text, b in zip(texts, blanks, strict=True))
    return Filled(heading, tuple(cells), GAP + width, column.names)


def _aligned(cells: Sequence[str]) -> list[str]:
    """Blanks after cells so that, flush right, numbers end where numbers do, with an error or without one."""
    errors = max((len(cell) - cell.index(" ±") for cell in cells if " ±" in cell), default=0)

    def padded(cell: str) -> str:
        if cell == ABSENT or cell.endswith(")"):  # no number, or one with its range in brackets
            return cell
        number, _, error = cell.partition(" ±")
        return f"{number}{f' ±{error}' if error else '':<{errors}}"

    return [padded(cell) for cell in cells]
