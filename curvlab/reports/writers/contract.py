"""JSON: the contract of a document, plain values with the name of their schema."""

from __future__ import annotations

from curvlab.document.json import dumps
from curvlab.document.section import Document
from curvlab.document.writers import register


@register("json", "JSON", reads="contract")
def to_json(document: Document, pictures: str | None = None) -> str:
    """What the document promises to programs; its "schema" names the version of the promise."""
    return dumps(document.contract())
