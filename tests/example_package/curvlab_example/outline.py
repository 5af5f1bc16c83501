"""A format of reports of one's own: titles and rows of a document as an outline of stars, as Org mode has it."""

from __future__ import annotations

from curvlab.document.table import Table
from curvlab.document.writers import register
from curvlab.quoting import printable


@register("outline", "an outline")
def to_outline(document, pictures=None):
    """A star for the document, two for a section, three for a row of a table."""
    lines = [f"* {printable(document.title)}"]
    for section in document.sections:
        lines += [f"** {printable(section.title)}"] if section.title else []
        tables = (block for block in section.blocks if isinstance(block, Table))
        lines += [f"*** {printable(name)}" for table in tables for name in table.names]
    return "\n".join(lines) + "\n"
