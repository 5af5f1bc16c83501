"""Table: named rows and groups of columns, each cell as the text that a person reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from curvlab.document.numbers import ABSENT

Align = Literal["left", "right"]
Cut = Literal["columns", "never", "text"]
"""What a writer without room for a table does: put columns into a next table, leave it out, or fold its texts."""


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        title: its heading.
        cells: one text per row; `ABSENT` where there is nothing.
        legend: what the title means, to be read directly after it (": largest singular value").
        align: "right" for numbers, "left" for words.
        names: whether the cells are names, which a writer shortens as it does those of rows.
    """

    title: str
    cells: tuple[str, ...]
    legend: str = ""
    align: Align = "right"
    names: bool = False


@dataclass(frozen=True)
class Group:
    """Columns that are read together under one title."""

    title: str
    columns: tuple[Column, ...]


@dataclass(frozen=True)
class Table:
    """Rows by name.

    Attributes:
        names: of the rows.
        groups: of columns, each with as many cells as there are names.
        heading: of the column of names.
        sparse: whether rows without any entry are left out of the part of the table they are empty in.
        cut: what gives way where the table is wider than the page.
        caption: a remark that is shown only with the table.
    """

    names: tuple[str, ...]
    groups: tuple[Group, ...]
    heading: str = "layer"
    sparse: bool = False
    cut: Cut = "columns"
    caption: str = ""

    def __post_init__(self) -> None:
        for group in self.groups:
            for column in group.columns:
                if len(column.cells) != len(self.names):
                    raise ValueError(
                        f"column {column.title!r} has {len(column.cells)} cells for {len(self.names)} rows"
                    )


@dataclass(frozen=True)
class Quantity:
    """The definition of a column: how one number of a result reads.

    Attributes:
        title: heading of the column.
        text: the cell for one result; `ABSENT` where it has no such number.
        legend, align: as in `Column`.
    """

    title: str
    text: Callable[[Any], str]
    legend: str = ""
    align: Align = "right"

    def column(self, results: Iterable[Any]) -> Column:
        """The column over results, `ABSENT` where a result is None."""
        cells = tuple(ABSENT if result is None else self.text(result) for result in results)
        return Column(self.title, cells, self.legend, self.align)


def group(title: str, quantities: Iterable[Quantity], results: Sequence[Any]) -> Group:
    """The columns of `quantities` that are not empty."""
    columns = (quantity.column(results) for quantity in quantities)
    return Group(title, tuple(column for column in columns if any(cell != ABSENT for cell in column.cells)))


def plain_table(
    names: Sequence[str], columns: Iterable[tuple[str, Sequence[str]]], heading: str, left: Sequence[str] = ()
) -> Table:
    """A table of one group without a title, all of it shown, from (title, cells) pairs; numbers but for `left`."""
    made = tuple(Column(title, tuple(cells), align="left" if title in left else "right") for title, cells in columns)
    return Table(tuple(names), (Group("", made),), heading)


def legends(tables: Iterable[Table]) -> dict[str, str]:
    """Title of each group -> what its columns mean, of the columns that have a legend."""
    found: dict[str, list[str]] = {}
    for table in tables:
        for one in table.groups:
            texts = [f"{column.title}{column.legend}" for column in one.columns if column.legend]
            found.setdefault(one.title, []).extend(texts)
    return {title: f"{'; '.join(texts)}." for title, texts in found.items() if texts}
