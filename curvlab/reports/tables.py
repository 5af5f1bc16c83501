"""Tables that fit a width: groups of columns are kept together, and what does not fit goes into a next table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from curvlab.analyses.results import LayerResult
from curvlab.reports.columns import Column, Group
from curvlab.reports.escape import escape
from curvlab.reports.numbers import ABSENT

NAME = (14, 30)
"""Cells of the column of names: at least, and at most before a group moves to the next table for lack of room."""
GAP = 2
"""Cells between columns."""

Part = tuple[str, list[Column]]
"""The title and the columns of one table."""


def print_tables(console: Console, layers: Sequence[LayerResult], groups: Sequence[Group]) -> None:
    """One row per layer in as few tables as `console.width` allows; empty columns and rows are left out."""
    longest = max((cell_len(escape(layer.name)) for layer in layers), default=0)
    for title, columns in _packed(layers, groups, min(longest, NAME[1]), console.width):
        room = max(NAME[0], console.width - sum(_width(column, layers) for column in columns))
        table = Table(title=Text(title, "bold"), title_justify="left", box=None, padding=(0, GAP, 0, 0), pad_edge=False)
        table.add_column("layer", no_wrap=True, max_width=room)
        for column in columns:
            table.add_column(column.title, justify="right" if column.right else "left", no_wrap=True)
        for layer in layers:
            cells = [column.text(layer) for column in columns]
            if any(cell != ABSENT for cell in cells):
                table.add_row(Text(shortened(escape(layer.name), room)), *(Text(escape(cell)) for cell in cells))
        console.print(table)
        console.print()


def shortened(name: str, width: int) -> str:
    """`name` in at most `width` characters, its middle replaced by an ellipsis: both ends tell layers apart."""
    if len(name) <= width:
        return name
    head = (width - 1) // 2
    return f"{name[:head]}…{name[head + 1 - width :]}"


def _packed(layers: Sequence[LayerResult], groups: Sequence[Group], name: int, width: int) -> Iterator[Part]:
    """Groups joined while they fit beside a name; a group that is too wide alone is cut between columns."""
    titles: list[str] = []
    columns: list[Column] = []
    used = name
    for group in groups:
        shown = [column for column in group.columns if any(column.text(layer) != ABSENT for layer in layers)]
        wide = sum(_width(column, layers) for column in shown)
        if columns and used + wide > width:
            yield " · ".join(titles), columns
            titles, columns, used = [], [], name
        for column in shown:
            if columns and used - name + NAME[0] + _width(column, layers) > width:
                yield " · ".join([*titles, group.title]), columns
                titles, columns, used = [], [], name
            columns.append(column)
            used += _width(column, layers)
        if shown and group.title not in titles:
            titles.append(group.title)
    if columns:
        yield " · ".join(titles), columns


def _width(column: Column, layers: Sequence[LayerResult]) -> int:
    """Cells that a column takes, with the gap before it."""
    return GAP + max(cell_len(column.title), *(cell_len(column.text(layer)) for layer in layers))
