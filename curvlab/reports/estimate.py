"""What a run would cost, before it is run: sizes, memory and work per block (`--dry-run`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from curvlab.document.json import plain
from curvlab.reports.escape import escape
from curvlab.reports.numbers import count, operations, size
from curvlab.reports.tables import GAP, shortened

if TYPE_CHECKING:
    from curvlab.analyses.estimate import Estimate

SCHEMA = "curvlab.estimate/1"
NAME = 40
"""Cells for the name of a block."""


def estimate_to_dict(estimate: Estimate) -> dict[str, Any]:
    """The contract `curvlab.estimate/1`: the fields of `Estimate`, memory in bytes, work in multiply-adds."""
    return {"schema": SCHEMA, **plain(estimate)}


def print_estimate(console: Console, estimate: Estimate) -> None:
    """One row per block and the totals, with the memory that all need together."""
    title = Text("Estimate: nothing was computed", "bold")
    table = Table(title=title, title_justify="left", box=None, padding=(0, GAP, 0, 0), pad_edge=False)
    for heading in ("layer", "kind"):
        table.add_column(heading, no_wrap=True)
    for heading in ("inputs", "outputs", "positions", "memory", "products"):
        table.add_column(heading, justify="right", no_wrap=True)
    for block in estimate.blocks:
        sizes = (count(block.input_size), count(block.output_size), count(block.positions))
        cells = (block.kind, *sizes, size(block.memory), operations(block.work))
        table.add_row(Text(shortened(escape(block.name), NAME)), *(Text(escape(cell)) for cell in cells))
    if estimate.blocks:
        console.print(table)
        console.print()
    console.print(Text(f"held at once: {size(estimate.memory)}; products (multiply-adds): {operations(estimate.work)}"))
    for note in estimate.notes:
        console.print(Text.assemble(("note: ", "bold"), escape(note)))
