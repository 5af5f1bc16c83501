"""An analysis for a person at a terminal: what was looked at, the tables, what was left out and why."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from curvlab.reports.columns import FACTS, FOP, GROUPS, Group
from curvlab.reports.escape import escape
from curvlab.reports.numbers import count, shape, share
from curvlab.reports.sorting import Sort, ordered
from curvlab.reports.tables import Rows, print_tables, shown

if TYPE_CHECKING:
    from curvlab.analyses.results import Analysis, BlockCoverage, LayerResult

MOST_NAMES = 6
"""Names of blocks that are spelled out before the rest is only counted."""
INDENT = 2
"""Cells by which what continues a line is further in."""

NOTATION = "condition number λmax/λmin; ∞: singular (κ over the range); ±: standard error; –: none."


def print_analysis(console: Console, analysis: Analysis, sort: Sort = "model") -> None:
    """The whole report, in lines of at most `console.width` cells."""
    for line in (_model(analysis), *_data(analysis), *_coverage(analysis), *_inferred(analysis)):
        _print(console, line)
    console.print()
    groups = _groups(analysis)
    print_tables(console, ordered(analysis.layers, sort), groups)
    print_tables(console, analysis.fop, (FOP,))
    for line in (*_legends(groups, analysis.layers), *_legends((FOP,), analysis.fop), _labelled("κ", NOTATION)):
        line.stylize("dim")
        _print(console, line)
    if analysis.notes or any(_notes_on_fop(analysis)):
        console.print()
    for note in (*analysis.notes, *_notes_on_fop(analysis)):
        _print(console, _labelled("note", note))


def _model(analysis: Analysis) -> Text:
    model = analysis.model
    facts = [str(model.get("format")), f"{count(analysis.coverage.parameters)} parameters"]
    facts.append(f"network: {model['architecture']}" if model.get("architecture") else "no network to run")
    return _labelled("model", f"{model.get('path') or 'in memory'} ({', '.join(facts)})")


def _data(analysis: Analysis) -> Iterator[Text]:
    data, settings = analysis.data, analysis.settings
    if data is None:
        yield _labelled("data", "none: only what the weights themselves say")
        return
    line = _labelled("data", "")
    if data.get("synthetic"):
        line.append("SYNTHETIC, not measurements: ", "bold yellow")
    size = shape(tuple(data.get("input_shape") or ()))
    yield line.append(escape(f"{data['source']}, {count(data['samples'])} examples of shape {size}"))
    kfac, tnt = (any(getattr(layer, section) for layer in analysis.layers) for section in ("kfac", "tnt"))
    chosen = {
        "likelihood": settings.get("likelihood") or settings.get("loss"),
        "fisher type": settings.get("fisher_type") if kfac or tnt else None,
        "K-FAC": settings.get("kfac_approx") if kfac else None,
        "tensor-normal": settings.get("statistic") if tnt else None,
        "dtype": settings.get("dtype"),
        "seed": analysis.seed,
    }
    yield _labelled("settings", ", ".join(f"{name} {value}" for name, value in chosen.items() if value is not None))


def _coverage(analysis: Analysis) -> Iterator[Text]:
    """The share of parameters that were analysed, then the blocks that were not, gathered by what became of them."""
    total, analyzed, blocks = analysis.coverage.parameters, analysis.coverage.analyzed, analysis.coverage.blocks
    counts = f"{count(analyzed)} of {count(total)} parameters analysed on data"
    yield _labelled("coverage", f"{counts} ({share(analyzed, total)})")
    gathered: dict[tuple[str, str], list[BlockCoverage]] = {}
    for block in blocks:
        if block.status != "analyzed":
            gathered.setdefault((block.status, block.reason or _why_nothing_ran(analysis)), []).append(block)
    for (status, reason), alike in gathered.items():
        names = f"all {len(blocks)} layers" if MOST_NAMES < len(alike) == len(blocks) else _names(alike)
        parameters = count(sum(block.parameters for block in alike))
        yield _labelled(f"  {status}", f"{names} ({parameters} parameters)" + (f": {reason}" if reason else ""))


def _why_nothing_ran(analysis: Analysis) -> str:
    if analysis.data is not None:
        return ""
    return "no data was given" if analysis.model.get("runnable") else "there is no network to run"


def _inferred(analysis: Analysis) -> Iterator[Text]:
    """What kinds were inferred rather than known, gathered where the same was seen with other numbers."""
    gathered: dict[tuple[str, float, str], list[LayerResult]] = {}
    for layer in analysis.layers:
        if layer.confidence < 1:
            key = (layer.kind, layer.confidence, re.sub(r"\d+", "0", layer.evidence or ""))
            gathered.setdefault(key, []).append(layer)
    if gathered:
        yield _labelled("kinds", "inferred from names and shapes; how surely, and by what")
    for (kind, confidence, _), alike in gathered.items():
        example = "e.g. " if len({layer.evidence for layer in alike}) > 1 else ""
        evidence = f": {example}{alike[0].evidence}" if alike[0].evidence else ""
        yield _labelled(f"  {kind}, {100 * confidence:.0f}%", f"{_names(alike)}{evidence}")


def _names(alike: Sequence[BlockCoverage] | Sequence[LayerResult]) -> str:
    names = ", ".join(one.name for one in alike[:MOST_NAMES])
    return f"{names} and {len(alike) - MOST_NAMES} more" if len(alike) > MOST_NAMES else names


def _groups(analysis: Analysis) -> tuple[Group, ...]:
    """The groups that some layer has results for; the first also says what each layer is."""
    sections = ("weights", "moments", "kfac", "tnt")
    present = [
        group
        for group, section in zip(GROUPS, sections, strict=True)
        if any(getattr(layer, section) is not None for layer in analysis.layers)
    ]
    if not present:
        return (Group("Layers", FACTS),)
    return (replace(present[0], columns=(*FACTS, *present[0].columns)), *present[1:])


def _legends(groups: Sequence[Group], layers: Rows) -> Iterator[Text]:
    """What every column means that is there, one line for each title."""
    titles: dict[str, list[str]] = {}
    for group in groups:
        legends = [f"{column.title}{column.legend}" for column in shown(group, layers) if column.legend]
        titles.setdefault(group.title, []).extend(legends)
    return (_labelled(title, f"{'; '.join(legends)}.") for title, legends in titles.items() if legends)


def _notes_on_fop(analysis: Analysis) -> Iterator[str]:
    for one in analysis.fop:
        if one.note:
            yield f"FOP's matrix of {one.parameter}: {one.note}"
    angle = next((one.angle for one in analysis.fop if one.angle is not None), None)
    if angle is not None:
        whose = "the data's own targets" if angle.targets == "data" else "targets drawn from the network"
        yield f"angles are of the mean gradient of {count(angle.examples)} examples at {whose}"


def _labelled(label: str, text: str) -> Text:
    return Text.assemble((f"{escape(label)}: ", "bold"), escape(text))


def _print(console: Console, text: Text) -> None:
    """`text` over as many lines as it needs, all but the first further in, none with blanks at its end."""
    inner = len(text.plain) - len(text.plain.lstrip()) + INDENT
    for place, line in enumerate(text.wrap(console, console.width - inner)):
        line.rstrip()
        console.print(Text(" " * inner).append_text(line) if place else line)
