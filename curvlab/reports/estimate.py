"""What a run would cost, before it is run: sizes, memory and work per block (`--dry-run`)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from curvlab.document.json import plain
from curvlab.document.numbers import count, operations, size
from curvlab.document.section import Document, Note, Section
from curvlab.document.table import Column, Group, Table

if TYPE_CHECKING:
    from curvlab.analyses.estimate import Estimate

SCHEMA = "curvlab.estimate/1"
TITLE = "Estimate: nothing was computed"


def estimate_to_dict(estimate: Estimate) -> dict[str, Any]:
    """The contract `curvlab.estimate/1`: the fields of `Estimate`, memory in bytes, work in multiply-adds."""
    return {"schema": SCHEMA, **plain(estimate)}


def estimate_document(estimate: Estimate) -> Document:
    """One row per block and the totals, with the memory that all need together."""
    blocks = estimate.blocks
    columns = (
        Column("kind", tuple(block.kind for block in blocks), align="left"),
        Column("inputs", tuple(count(block.input_size) for block in blocks)),
        Column("outputs", tuple(count(block.output_size) for block in blocks)),
        Column("positions", tuple(count(block.positions) for block in blocks)),
        Column("memory", tuple(size(block.memory) for block in blocks)),
        Column("products", tuple(operations(block.work) for block in blocks)),
    )
    table = Table(tuple(block.name for block in blocks), (Group("", columns),))
    total = f"held at once: {size(estimate.memory)}; products (multiply-adds): {operations(estimate.work)}"
    notes = (Note(total), *(Note(note, label="note") for note in estimate.notes))
    parts = (Section((table,), TITLE),) if blocks else ()
    return Document(TITLE, (*parts, Section(notes)), partial(estimate_to_dict, estimate))
