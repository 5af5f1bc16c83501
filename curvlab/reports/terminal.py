"""A document for a person at a terminal, in lines that fit its width, with nothing that could move a cursor."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from curvlab.document.section import Block, Document, Note, Section
from curvlab.document.table import Table
from curvlab.quoting import printable
from curvlab.reports.tables import laid_out

INDENT = 2
"""Cells by which what continues a line is further in."""
WIDEST = 120
"""Cells of a line of prose, however wide the page is."""
STYLES = {"plain": "", "heading": "bold", "aside": "dim"}
ALERT = "bold yellow"


def print_document(console: Console, document: Document) -> None:
    """Sections with a blank line between them, in lines of at most `console.width` cells; pictures are left out."""
    begun = False
    for section in document.sections:
        begun = _print_section(console, section, begun) or begun


def _print_section(console: Console, section: Section, begun: bool) -> bool:
    """Prints the section, after a blank line where one has `begun`; whether there was anything to print."""
    if section.elsewhere:
        section = Section((Note(section.elsewhere, tone="aside"),))
    heading = (Note(section.title, tone="heading"),) if section.title else ()
    before: type[Block] | None = None
    for block in (*heading, *section.blocks):
        if isinstance(block, Note):
            if before is None and begun:
                console.print()
            _print_note(console, block)
            before = Note
        elif isinstance(block, Table):
            for title, drawn in laid_out(block, console.width):
                if before is Table or (before is None and begun):
                    console.print()
                if title:
                    console.print(Text(printable(title), "bold"))
                console.print(drawn, no_wrap=isinstance(drawn, Text) or None, crop=False)
                before = Table
            if before is Table and block.caption:
                _print_note(console, Note(block.caption, tone="aside"))
    return before is not None


def _print_note(console: Console, note: Note) -> None:
    """The note over as many lines as it needs, all but the first further in, none with blanks at its end."""
    margin = " " * (INDENT * note.depth)
    label = f"{margin}{printable(note.label)}: " if note.label else margin
    text = Text.assemble(
        (label, "bold"), (f"{printable(note.alert)}: " if note.alert else "", ALERT), printable(note.text)
    )
    if STYLES[note.tone]:
        text.stylize(STYLES[note.tone])
    inner = len(margin) + INDENT
    for place, line in enumerate(text.wrap(console, min(console.width, WIDEST) - inner)):
        line.rstrip()
        console.print(Text(" " * inner).append_text(line) if place else line)
