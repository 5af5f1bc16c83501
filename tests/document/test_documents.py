"""Documents are plain data: tables that hold together, legends, records by path, paths of results by their fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from curvlab.document.field_paths import field_paths
from curvlab.document.figure import Figure, Panel, first_of
from curvlab.document.records import leaves, records
from curvlab.document.section import Document, Note, Section
from curvlab.document.table import Column, Group, Quantity, Table, group, legends


def test_a_column_has_a_cell_for_every_row() -> None:
    with pytest.raises(ValueError, match="column 'x' has 1 cells for 2 rows"):
        Table(("a", "b"), (Group("", (Column("x", ("1",)),)),))


def test_a_group_leaves_empty_columns_out_and_marks_what_is_absent() -> None:
    found = group("G", (Quantity("n", str, ": a number"), Quantity("none", lambda _: "–")), [3, None])
    assert [(column.title, column.cells) for column in found.columns] == [("n", ("3", "–"))]
    assert legends([Table(("a", "b"), (found, Group("G", (Column("m", ("", ""), " = m"),))))]) == {
        "G": "n: a number; m = m."
    }


def test_figures_are_found_in_reading_order() -> None:
    one, two = Figure("one", (Panel(),)), Figure("two", (Panel(),))
    document = Document("t", (Section((Note("n"), one)), Section((two,))), dict)
    assert [figure.name for figure in document.figures()] == ["one", "two"]
    assert first_of(3, 3) == ""
    assert first_of(3, 9, "layers") == " (the first 3 of 9 layers)"


def test_records_have_a_column_for_every_number_and_none_for_what_holds_numbers() -> None:
    rows = [dict(leaves("s", {"a": 1, "b": {"c": None, "d": [2, 3]}})), dict(leaves("s", {"a": 4, "b": None}))]
    names = [name for row in rows for name in row]
    made = records(rows, list(dict.fromkeys(names)))
    assert made.columns == ("s.a", "s.b.c", "s.b.d.0", "s.b.d.1")
    assert made.rows == ((1, None, 2, 3), (4, None, None, None))
    assert dict(leaves("s", None)) == {}


@dataclass(frozen=True)
class Inner:
    n: int
    name: str


@dataclass(frozen=True)
class Outer:
    x: float | None
    inner: Inner | None
    several: tuple[Inner | None, ...]
    errors: Mapping[str, float]
    note: str | None = None


def test_paths_of_a_result_are_those_of_its_numbers() -> None:
    assert field_paths(Outer) == ("x", "inner.n", "several.0.n", "errors.…")
