"""Markdown: a document as one file that shows in a repository, an issue or a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from curvlab.document.figure import Figure
from curvlab.document.numbers import ABSENT
from curvlab.document.section import Document, Note, Section
from curvlab.document.table import Column, Table
from curvlab.document.writers import register
from curvlab.quoting import printable

_SPECIAL = re.compile(r"[\\`*_{}\[\]<>#|~$&]|:(?=//)|\.(?<=www\.)")


@register("markdown", "Markdown")
def to_markdown(document: Document, pictures: str | None = None) -> str:
    """The sections of `document`, in GitHub's dialect.

    Args:
        document: what was found.
        pictures: the folder of its pictures, as a link from the file reads it; None leaves them out.
    """
    blocks = [f"# {markdown(document.title)}"]
    for section in document.sections:
        blocks.extend(_section(section, pictures))
    return "\n\n".join(blocks) + "\n"


def markdown(text: str) -> str:
    """`text` so that Markdown shows it and obeys nothing in it."""
    return _SPECIAL.sub(lambda found: f"\\{found[0]}", printable(text))


def _section(section: Section, pictures: str | None) -> Iterator[str]:
    if section.title:
        yield f"## {markdown(section.title)}"
    lines: list[str] = []
    for block in section.blocks:
        if isinstance(block, Note) and block.tone != "heading":
            lines.append(_line(block))
            continue
        if lines:
            yield "\n".join(lines)
            lines = []
        if isinstance(block, Note):
            yield f"## {markdown(block.text)}"
        elif isinstance(block, Table):
            yield from _table(block)
        elif pictures is not None:
            yield _picture(block, pictures)
    if lines:
        yield "\n".join(lines)


def _line(note: Note) -> str:
    label = f"**{markdown(note.label)}:** " if note.label else ""
    alert = f"**{markdown(note.alert)}:** " if note.alert else ""
    return f"{'  ' * note.depth}- {label}{alert}{markdown(note.text)}"


def _table(table: Table) -> Iterator[str]:
    """One table per title of its groups."""
    together: dict[str, list[Column]] = {}
    for group in table.groups:
        together.setdefault(group.title, []).extend(group.columns)
    for title, columns in together.items():
        if title:
            yield f"### {markdown(title)}"
        heading = [table.heading, *(column.title for column in columns)]
        rule = ["---", *("---:" if column.align == "right" else "---" for column in columns)]
        rows = zip(table.names, *(column.cells for column in columns), strict=True)
        kept = (row for row in rows if not table.sparse or any(cell != ABSENT for cell in row[1:]))
        yield "\n".join([_row(heading), f"| {' | '.join(rule)} |", *map(_row, kept)])
    if table.caption:
        yield markdown(table.caption)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(markdown(cell) for cell in cells)} |"


def _picture(figure: Figure, folder: str) -> str:
    return f"![{markdown(figure.title or figure.name)}](<{folder}/{figure.name}.svg>)"
