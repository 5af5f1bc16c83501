"""The document of an analysis: model and data, a table of the layers, and what was left out and why."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial

from curvlab.analyses.registry import layer_analyses, model_analyses
from curvlab.analyses.results import Analysis, BlockCoverage, LayerResult
from curvlab.document.figure import Figure
from curvlab.document.numbers import count, shape, share
from curvlab.document.section import Document, Note, Section
from curvlab.document.table import Group, Quantity, Table, group, legends
from curvlab.reports.analysis_records import analysis_records
from curvlab.reports.sorting import ordered

MOST_NAMES = 6
"""Names of blocks that are spelled out before the rest is only counted."""

NOTATION = (
    "condition number λmax/λmin; ∞ (x): the matrix is singular, x is λmax over its smallest nonzero eigenvalue; "
    "±: standard error; –: none."
)

FACTS = (
    Quantity("kind", lambda layer: layer.kind, align="left"),
    Quantity("shape", lambda layer: shape(layer.shape), align="left"),
    Quantity("parameters", lambda layer: count(layer.parameters)),
)
"""Columns of what a layer is."""


def analysis_document(analysis: Analysis, sort: str = "model", figures: Sequence[Figure] = ()) -> Document:
    """The whole report.

    Args:
        analysis: the result.
        sort: the order of the layers in the table, of `curvlab.analyses.registry.sort_keys`.
        figures: what `analysis_figures` makes of it, where pictures are wanted.
    """
    tables = (_layer_table(analysis, sort), *_model_tables(analysis))
    explained = (*legends(tables).items(), ("κ", NOTATION))
    remarks = (remark for one in model_analyses() for remark in one.remarks(analysis.results.get(one.name, ())))
    sections = (
        Section((_model(analysis), *_data(analysis), *_coverage(analysis), *_inferred(analysis))),
        *(Section((table,)) for table in tables if table.groups),
        Section(tuple(Note(text, label, tone="aside") for label, text in explained)),
        Section(tuple(Note(note, "note") for note in (*analysis.notes, *remarks))),
        Section(tuple(figures)),
    )
    title = f"Analysis of {analysis.model.get('path') or 'a model in memory'}"
    return Document(title, sections, analysis.to_dict, partial(analysis_records, analysis))


def _layer_table(analysis: Analysis, sort: str) -> Table:
    """Every analysis that some layer has results of; the first group also says what each layer is."""
    layers = ordered(analysis.layers, sort)
    found = [one for one in layer_analyses() if any(one.name in layer.results for layer in layers)]
    groups = [group(one.title, one.quantities, [layer.results.get(one.name) for layer in layers]) for one in found]
    facts = group("Layers", FACTS, layers)
    if groups:
        groups[0] = Group(groups[0].title, (*facts.columns, *groups[0].columns))
    names = tuple(layer.name for layer in layers)
    return Table(names, tuple(groups or [facts]) if layers else (), sparse=True)


def _model_tables(analysis: Analysis) -> Iterator[Table]:
    """A table for each analysis with rows of its own."""
    for one in model_analyses():
        rows = analysis.results.get(one.name, ())
        if rows and one.quantities:
            yield Table(tuple(row.name for row in rows), (group(one.title, one.quantities, rows),), sparse=True)


def _model(analysis: Analysis) -> Note:
    model = analysis.model
    facts = [str(model.get("format")), f"{count(analysis.coverage.parameters)} parameters"]
    facts.append(f"network: {model['architecture']}" if model.get("architecture") else "no network to run")
    return Note(label="model", text=f"{model.get('path') or 'in memory'} ({', '.join(facts)})")


def _data(analysis: Analysis) -> Iterator[Note]:
    data, settings = analysis.data, analysis.settings
    if data is None:
        yield Note(label="data", text="none: only what the weights themselves say")
        return
    size = shape(tuple(data.get("input_shape") or ()))
    text = f"{data['source']}, {count(data['samples'])} examples of shape {size}"
    yield Note(text, "data", alert="SYNTHETIC, not measurements" if data.get("synthetic") else "")
    chosen = {"likelihood": settings.get("likelihood") or settings.get("loss")}
    for one in layer_analyses():
        if any(layer.results.get(one.name) for layer in analysis.layers):
            chosen |= {label: settings.get(field) for label, field in one.settings_shown.items()}
    chosen |= {"dtype": settings.get("dtype"), "seed": analysis.seed}
    known = ", ".join(f"{name} {value}" for name, value in chosen.items() if value is not None)
    yield Note(known, "settings")


def _coverage(analysis: Analysis) -> Iterator[Note]:
    """The share of parameters that were analysed, then the blocks that were not, gathered by what became of them."""
    total, analyzed, blocks = analysis.coverage.parameters, analysis.coverage.analyzed, analysis.coverage.blocks
    counts = f"{count(analyzed)} of {count(total)} parameters analysed on data"
    yield Note(f"{counts} ({share(analyzed, total)})", "coverage")
    gathered: dict[tuple[str, str], list[BlockCoverage]] = {}
    for block in blocks:
        if block.status != "analyzed" or block.reason:
            gathered.setdefault((block.status, block.reason or _why_nothing_ran(analysis)), []).append(block)
    for (status, reason), alike in gathered.items():
        names = f"all {len(blocks)} layers" if MOST_NAMES < len(alike) == len(blocks) else _names(alike)
        parameters = count(sum(block.parameters for block in alike))
        yield Note(f"{names} ({parameters} parameters)" + (f": {reason}" if reason else ""), status, depth=1)


def _why_nothing_ran(analysis: Analysis) -> str:
    if analysis.data is not None:
        return ""
    return "no data was given" if analysis.model.get("runnable") else "there is no network to run"


def _inferred(analysis: Analysis) -> Iterator[Note]:
    """What kinds were inferred rather than known, gathered where the same was seen with other numbers."""
    gathered: dict[tuple[str, float, str], list[LayerResult]] = {}
    for layer in analysis.layers:
        if layer.confidence < 1:
            key = (layer.kind, layer.confidence, re.sub(r"\d+", "0", layer.evidence or ""))
            gathered.setdefault(key, []).append(layer)
    if gathered:
        yield Note("inferred from names and shapes; how surely, and by what", "kinds")
    for (kind, confidence, _), alike in gathered.items():
        example = "e.g. " if len({layer.evidence for layer in alike}) > 1 else ""
        evidence = f": {example}{alike[0].evidence}" if alike[0].evidence else ""
        yield Note(f"{_names(alike)}{evidence}", f"{kind}, {100 * confidence:.0f}%", depth=1)


def _names(alike: Sequence[BlockCoverage] | Sequence[LayerResult]) -> str:
    names = ", ".join(one.name for one in alike[:MOST_NAMES])
    return f"{names} and {len(alike) - MOST_NAMES} more" if len(alike) > MOST_NAMES else names
