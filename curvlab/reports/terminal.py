"""An analysis for a person at a terminal: what was looked at, the tables, what was left out and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from curvlab.reports.columns import FACTS, GROUPS, Group
from curvlab.reports.escape import escape
from curvlab.reports.numbers import count, shape
from curvlab.reports.sorting import Sort, ordered
from curvlab.reports.tables import print_tables

if TYPE_CHECKING:
    from curvlab.analyses.results import Analysis, BlockCoverage

MOST_NAMES = 6
"""Names of blocks that are spelled out before the rest is only counted."""


def print_analysis(console: Console, analysis: Analysis, sort: Sort = "model") -> None:
    """The whole report, in lines of at most `console.width` cells."""
    for line in (_model(analysis), _data(analysis), *_coverage(analysis)):
        console.print(line)
    console.print()
    groups = _groups(analysis)
    print_tables(console, ordered(analysis.layers, sort), groups)
    for legend in dict.fromkeys(group.legend for group in groups):
        console.print(Text(legend, "dim"))
    console.print(
        Text("κ: condition number; ∞ is singular, in brackets λmax/λmin over the range; ± one standard error.", "dim")
    )
    if analysis.notes:
        console.print()
    for note in analysis.notes:
        console.print(_labelled("note", note))


def _model(analysis: Analysis) -> Text:
    model = analysis.model
    facts = [str(model.get("format")), f"{count(analysis.coverage.parameters)} parameters"]
    facts.append(f"network: {model['architecture']}" if model.get("architecture") else "no network to run")
    return _labelled("model", f"{model.get('path') or 'in memory'} ({', '.join(facts)})")


def _data(analysis: Analysis) -> Text:
    data, settings = analysis.data, analysis.settings
    if data is None:
        return _labelled("data", "none: only what the weights themselves say")
    size = shape(tuple(data.get("input_shape") or ()))
    keys = ("likelihood" if settings.get("likelihood") else "loss", "fisher_type", "kfac_approx", "dtype")
    known = [str(settings[key]) for key in keys if settings.get(key)]
    choices = ", ".join([*known, f"seed {analysis.seed}"])
    text = f"{data['source']}, {count(data['samples'])} examples of shape {size} ({choices})"
    line = _labelled("data", "")
    if data.get("synthetic"):
        line.append("SYNTHETIC, not measurements: ", "bold yellow")
    return line.append(escape(text))


def _coverage(analysis: Analysis) -> Iterator[Text]:
    """The share of parameters that were analysed, then the blocks that were not, gathered by what became of them."""
    total, analyzed = analysis.coverage.parameters, analysis.coverage.analyzed
    share = f"{100 * analyzed / total:.1f}%" if total else "nothing"
    yield _labelled("coverage", f"{count(analyzed)} of {count(total)} parameters analysed ({share})")
    gathered: dict[tuple[str, str], list[BlockCoverage]] = {}
    for block in analysis.coverage.blocks:
        if block.status != "analyzed":
            gathered.setdefault((block.status, block.reason or ""), []).append(block)
    for (status, reason), blocks in gathered.items():
        names = ", ".join(block.name for block in blocks[:MOST_NAMES])
        rest = f" and {len(blocks) - MOST_NAMES} more" if len(blocks) > MOST_NAMES else ""
        parameters = count(sum(block.parameters for block in blocks))
        yield _labelled(f"  {status}", f"{names}{rest} ({parameters} parameters)" + (f": {reason}" if reason else ""))


def _groups(analysis: Analysis) -> tuple[Group, ...]:
    """The groups that some layer has results for; the first also says what each layer is."""
    sections = ("weights", "moments", "kfac", "tnt")
    present = [
        group
        for group, section in zip(GROUPS, sections, strict=True)
        if any(getattr(layer, section) is not None for layer in analysis.layers)
    ]
    if not present:
        return (Group("Layers", FACTS, ""),)
    return (replace(present[0], columns=(*FACTS, *present[0].columns)), *present[1:])


def _labelled(label: str, text: str) -> Text:
    return Text.assemble((f"{label}: ", "bold"), escape(text))
