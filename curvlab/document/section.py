"""Note, Section and Document: what a command found, in the order in which a person reads it. Nothing here renders.

A builder makes one `Document` from one result (`curvlab/reports/`); every writer reads nothing else. A new format of
reports is therefore one writer, and a new result is one builder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from curvlab.document.figure import Figure
from curvlab.document.records import Records
from curvlab.document.table import Table

Tone = Literal["plain", "heading", "aside"]
"""How much a note asks of its reader; an "aside" explains what stands beside it."""


@dataclass(frozen=True)
class Note:
    """One paragraph of plain text; names from files are in it as they are, and writers escape them.

    Attributes:
        text: the sentence.
        label: what it is about ("model", "settings", "note"); empty for none.
        alert: words in front of the text that no reader may overlook.
        tone: "heading", "aside" or "plain".
        depth: 1 for a line that belongs to the note above it, else 0.
    """

    text: str
    label: str = ""
    alert: str = ""
    tone: Tone = "plain"
    depth: int = 0


Block = Note | Table | Figure


@dataclass(frozen=True)
class Section:
    """Blocks that are read together.

    Attributes:
        blocks: in reading order.
        title: a heading; empty where the blocks need none.
        elsewhere: what a page that is read from top to bottom says in place of the blocks, which would fill it; empty
            where it shows them. Files hold them all.
    """

    blocks: tuple[Block, ...]
    title: str = ""
    elsewhere: str = ""


@dataclass(frozen=True)
class Document:
    """Everything that one result says.

    Attributes:
        title: what the document is about, for writers whose files stand alone.
        sections: for a person.
        contract: makes the JSON contract, plain values with a "schema" in them; made when a writer asks for it, since
            for a model of many layers it is long.
        records: makes the rows for programs that read tables; None where there are none.
    """

    title: str
    sections: tuple[Section, ...]
    contract: Callable[[], Mapping[str, Any]]
    records: Callable[[], Records] | None = None

    def figures(self) -> Iterator[Figure]:
        """Every picture, in reading order."""
        for section in self.sections:
            yield from (block for block in section.blocks if isinstance(block, Figure))
