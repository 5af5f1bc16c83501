"""`curvlab list`: what there is, with sources, plugins included."""

from __future__ import annotations

from typing import Annotated

import typer

from curvlab.listing import Subject

from .delivery import Targets, publish


def list_(
    subject: Annotated[Subject, typer.Argument(help="What to list.")],
    json: Annotated[
        str | None,
        typer.Option("--json", metavar="PATH", help="Write the list as JSON; '-' is stdout, and nothing else."),
    ] = None,
) -> None:
    """List optimizers, problems, datasets, file formats, layer types or analyses, with where each comes from."""
    targets = Targets(json)
    targets.check()
    from curvlab.listing import listing
    from curvlab.reports.listing import listing_document

    publish(listing_document(listing(subject)), targets)
