"""Listings for a person and for a program."""

from __future__ import annotations

from functools import partial
from typing import Any

from curvlab.document.section import Document, Note, Section
from curvlab.document.table import Column, Group, Table
from curvlab.listing import Listing

SCHEMA = "curvlab.list/1"


def listing_to_dict(listing: Listing) -> dict[str, Any]:
    """The contract `curvlab.list/1`: {"schema", "subject", "entries": [{column: text}], "notes"}."""
    entries = [dict(zip(listing.columns, row, strict=True)) for row in listing.rows]
    return {"schema": SCHEMA, "subject": listing.subject, "entries": entries, "notes": list(listing.notes)}


def listing_document(listing: Listing) -> Document:
    """One row per entry, long texts folded, then the notes."""
    heading, *titles = listing.columns
    names, *cells = zip(*listing.rows, strict=True) if listing.rows else ((), *((),) * len(titles))
    columns = tuple(Column(title, tuple(texts), align="left") for title, texts in zip(titles, cells, strict=True))
    table = Table(tuple(names), (Group("", columns),), heading, cut="text")
    notes = (Section((Note(note, label="note"),)) for note in listing.notes)
    return Document(f"curvlab list {listing.subject}", (Section((table,)), *notes), partial(listing_to_dict, listing))
