"""The document of an analysis: model and data, a table of the layers, and what was left out and why."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial

from curvlab.analyses.data_score import chance_notes, score_text
from curvlab.analyses.name_patterns import MOST_NAMES, named
from curvlab.analyses.registry import layer_analyses, model_analyses
from curvlab.analyses.results import Analysis, BlockCoverage, LayerResult
from curvlab.document.figure import Figure
from curvlab.document.numbers import count, shape, share
from curvlab.document.section import Document, Note, Section
from curvlab.document.table import Group, Quantity, Table, group, legends
from curvlab.reports.analysis_records import analysis_records
from curvlab.reports.layer_summary import summary_sections
from curvlab.reports.sorting import ordered

MOST_ROWS = 40
"""Layers beyond which a terminal shows a summary in place of the table."""
FIRST = 20
"""Rows of a table that was sorted, and is too long."""

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


def analysis_document(
    analysis: Analysis, sort: str = "model", figures: Sequence[Figure] = (), every: bool = False
) -> Document:
    """The whole report.

    Args:
        analysis: the result.
        sort: the order of the layers in the table, of `curvlab.analyses.registry.sort_keys`.
        figures: what `analysis_figures` makes of it, where pictures are wanted.
        every: whether a terminal shows every row, also of more than `MOST_ROWS` layers.
    """
    layers = ordered(analysis.layers, sort)
    many = len(layers) > MOST_ROWS
    whole = _layer_table(layers)
    shown = [whole] if not many or every else [_layer_table(layers[:FIRST])] if sort != "model" else []
    shown = [table for table in (*shown, *_model_tables(analysis)) if table.groups]
    remarks = (remark for one in model_analyses() for remark in one.remarks(analysis.results.get(one.name, ())))
    sections = (
        Section((_model(analysis), *_data(analysis), *_coverage(analysis), *_inferred(analysis))),
        *(summary_sections(analysis.layers) if many else ()),
        *(Section((table,)) for table in shown),
        Section((*_explained(shown), *((Note(NOTATION, "κ", tone="aside"),) if shown else ()))),
        *((Section((whole, *_explained([whole])), elsewhere=_where(analysis, sort)),) if many and not every else ()),
        Section(tuple(Note(note, "note") for note in (*analysis.notes, *remarks))),
        Section(tuple(figures)),
    )
    title = f"Analysis of {analysis.model.get('path') or 'a model in memory'}"
    return Document(title, sections, analysis.to_dict, partial(analysis_records, analysis))


def _explained(tables: Sequence[Table]) -> tuple[Note, ...]:
    return tuple(Note(text, label, tone="aside") for label, text in legends(tables).items())


def _where(analysis: Analysis, sort: str) -> str:
    """Where the table is that a terminal leaves out."""
    first = "" if sort == "model" else f"the first {FIRST} by {sort}; "
    total = count(len(analysis.layers))
    return f"{first}--all prints the rows of all {total} layers, --csv, --json and --markdown write them"


def _layer_table(layers: Sequence[LayerResult]) -> Table:
    """Every analysis that some layer has results of; the first group also says what each layer is."""
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
    if score := score_text(data):
        yield Note(score, "score", alert="NO BETTER THAN CHANCE" if any(chance_notes(data)) else "")
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
    """What kinds were inferred rather than known, gathered where the same was seen with other numbers; of many layers
    all of one kind together."""
    gathered: dict[tuple[str, float, str], list[LayerResult]] = {}
    for layer in analysis.layers:
        if layer.confidence < 1:
            evidence = "" if len(analysis.layers) > MOST_ROWS else re.sub(r"\d+", "0", layer.evidence or "")
            gathered.setdefault((layer.kind, layer.confidence, evidence), []).append(layer)
    if gathered:
        yield Note("inferred from names and shapes; how surely, and by what", "kinds")
    for (kind, confidence, _), alike in gathered.items():
        example = "e.g. " if len({layer.evidence for layer in alike}) > 1 else ""
        evidence = f": {example}{alike[0].evidence}" if alike[0].evidence else ""
        yield Note(f"{_names(alike)}{evidence}", f"{kind}, {100 * confidence:.0f}%", depth=1)


def _names(alike: Sequence[BlockCoverage] | Sequence[LayerResult]) -> str:
    return named([one.name for one in alike])
