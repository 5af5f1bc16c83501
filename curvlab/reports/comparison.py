"""The documents of `curvlab compare`: results, and the plan of `--dry-run`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from curvlab.document.figure import Figure
from curvlab.document.json import plain
from curvlab.document.numbers import count, size
from curvlab.document.section import Document, Note, Section
from curvlab.document.table import plain_table
from curvlab.reports.direction_figures import direction_figures
from curvlab.reports.directions import direction_records, direction_sections
from curvlab.reports.race_figures import race_figures
from curvlab.reports.races import race_sections

if TYPE_CHECKING:
    from curvlab.comparison.plan import Plan
    from curvlab.comparison.results import Comparison


def comparison_document(comparison: Comparison, figures: Sequence[Figure] = ()) -> Document:
    """Directions, then races, as far as there are any."""
    sections = list(direction_sections(comparison)) if comparison.optimizers else []
    if comparison.training is not None:
        sections += race_sections(comparison.training)
    sections.append(Section(tuple(figures)))
    title = f"Optimizers on {comparison.problem}"
    return Document(title, tuple(sections), comparison.to_dict, partial(direction_records, comparison))


def plan_document(plan: Plan) -> Document:
    """The layers and sizes of a comparison, and the memory of the exact Fisher blocks."""
    lines = []
    for label, entry in plan.optimizers.items():
        settings = ", ".join(f"{key} {value}" for key, value in entry.items() if key != "optimizer")
        lines.append(f"{label}: {entry['optimizer']}{f' ({settings})' if settings else ''}")
    blocks: list[Note] = [Note(line) for line in lines]
    title, runs = "Plan: nothing was computed", f"{len(plan.runs)} training runs, each in a process of its own"
    after = (Note(runs),) if plan.runs else ()
    if not plan.layers:
        return Document(title, (Section((*blocks, *after), title),), partial(plain, plan))
    where = f"directions beside {plan.baseline} on {plan.problem}: {plan.steps} batches of {plan.batch_size}"
    sizes = [layer.parameters for layer in plan.layers]
    memory = [layer.block_bytes for layer in plan.layers]
    columns = [
        ("parameters", [count(number) for number in (*sizes, sum(sizes))]),
        ("exact Fisher block", [size(number) for number in (*memory, sum(memory))]),
    ]
    table = plain_table([*(layer.name for layer in plan.layers), "all"], columns, "layer")
    return Document(title, (Section((*blocks, Note(where), table, *after), title),), partial(plain, plan))


def comparison_figures(comparison: Comparison) -> tuple[Figure, ...]:
    """What there is to draw of directions and of races."""
    races = () if comparison.training is None else race_figures(comparison.training)
    return (*direction_figures(comparison), *races)
