"""Listings for a person and for a program."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from curvlab.listing import Listing
from curvlab.reports.escape import escape
from curvlab.reports.tables import GAP

SCHEMA = "curvlab.list/1"


def listing_to_dict(listing: Listing) -> dict[str, Any]:
    """The contract `curvlab.list/1`: {"schema", "subject", "entries": [{column: text}], "notes"}."""
    entries = [dict(zip(listing.columns, row, strict=True)) for row in listing.rows]
    return {"schema": SCHEMA, "subject": listing.subject, "entries": entries, "notes": list(listing.notes)}


def print_listing(console: Console, listing: Listing) -> None:
    """One row per entry, long texts folded to the console's width, then the notes."""
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False)
    for place, column in enumerate(listing.columns):
        table.add_column(column, no_wrap=place == 0, overflow="fold")
    for row in listing.rows:
        table.add_row(*(Text(escape(cell)) for cell in row))
    console.print(table)
    for note in listing.notes:
        console.print(Text.assemble(("\nnote: ", "bold"), escape(note)))
