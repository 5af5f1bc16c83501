"""What a run would cost, before it is run: sizes, memory and work per block (`--dry-run`)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from curvlab.document.json import plain
from curvlab.document.numbers import count, duration, operations, size
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
        Column("pass", tuple("" if block.pass_number is None else str(block.pass_number) for block in blocks)),
        Column("memory", tuple(size(block.memory) for block in blocks)),
        Column("products", tuple(operations(block.work) for block in blocks)),
    )
    table = Table(tuple(block.name for block in blocks), (Group("", columns),))
    total = f"peak memory: {size(estimate.memory)}; products (multiply-adds): {operations(estimate.work)}"
    if estimate.seconds is not None:
        total += f"; about {duration(estimate.seconds)}"
    notes = (Note(total), *_passes(estimate), *(Note(note, label="note") for note in estimate.notes))
    parts = (Section((table,), TITLE),) if blocks else ()
    return Document(TITLE, (*parts, Section(notes)), partial(estimate_to_dict, estimate))


def _passes(estimate: Estimate) -> tuple[Note, ...]:
    if not estimate.passes:
        return ()
    times = "1 pass" if estimate.passes == 1 else f"{estimate.passes} passes"
    limit = "" if estimate.limit is None else f", within {size(estimate.limit)}"
    return (Note(f"{times} over the data, {estimate.batch_size} examples at once{limit}"),)
