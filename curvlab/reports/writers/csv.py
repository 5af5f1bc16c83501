"""CSV: records with a heading; cells of what does not exist are empty."""

from __future__ import annotations

import csv
import io
from typing import Any

from curvlab.document.records import Records
from curvlab.document.section import Document
from curvlab.document.writers import register
from curvlab.quoting import printable


@register("csv", "CSV", reads="records")
def records_as_csv(document: Document, pictures: str | None = None) -> str:
    """The records of a document that has some."""
    return "" if document.records is None else to_csv(document.records())


def to_csv(records: Records) -> str:
    """One line per row. Characters that do not print are spelled out, and a text that a spreadsheet would take for a
    formula gets an apostrophe in front."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(records.columns)
    writer.writerows([_cell(value) for value in row] for row in records.rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
