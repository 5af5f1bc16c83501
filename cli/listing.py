"""`curvlab list`: what there is, with sources, plugins included."""

from __future__ import annotations

from typing import Annotated

import typer

from curvlab.listing import Subject

from .delivery import Targets, delivers, publish


@delivers(None, "sections", "contract")
def list_(subject: Annotated[Subject, typer.Argument(help="What to list.")], *, targets: Targets) -> None:
    """List optimizers, problems, datasets, file formats, formats of reports, layer types or analyses, with where each
    comes from."""
    from curvlab.listing import listing
    from curvlab.reports.listing import listing_document

    publish(listing_document(listing(subject)), targets)
