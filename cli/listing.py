"""`curvlab list`: what there is, with sources, plugins included."""

from __future__ import annotations

from typing import Annotated

import typer

from curvlab.listing import Subject

from .output import STDOUT, check_target, deliver, show


def list_(
    subject: Annotated[Subject, typer.Argument(help="What to list.")],
    json: Annotated[
        str | None,
        typer.Option("--json", metavar="PATH", help="Write the list as JSON; '-' is stdout, and nothing else."),
    ] = None,
) -> None:
    """List optimizers, problems, datasets, file formats or layer types, with where each comes from."""
    check_target(json, "--json")
    from curvlab.document.json import dumps
    from curvlab.listing import listing
    from curvlab.reports.listing import listing_to_dict, print_listing

    found = listing(subject)
    deliver(dumps(listing_to_dict(found)), json)
    if json != STDOUT:
        show(lambda console: print_listing(console, found))
