"""Many layers on one screen: a row per pattern of names, and the worst layers by every number."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import zip_longest

from curvlab.analyses.layer_summary import Asked, PatternSummary, asked_of, summaries
from curvlab.analyses.name_patterns import MOST_PATTERNS, place_of
from curvlab.analyses.registry import layer_analyses
from curvlab.analyses.results import LayerResult
from curvlab.document.numbers import ABSENT, count, shape, short
from curvlab.document.section import Block, Note, Section
from curvlab.document.table import Column, Group, Table
from curvlab.reports.sparkline import sparkline

SPARK = 16
"""Cells of a curve over the depth."""
WORST = 10
"""Layers that are named by each number."""
TITLE = "Summary by pattern"
LEGEND = (
    "medians over the layers of a pattern; the worst of them, and at which numbers where the pattern has *; all over "
    "the depth, ▁ the lowest of the row and █ the highest, × infinite or none; ∞ (x): singular, x over the range."
)


def summary_sections(layers: Sequence[LayerResult]) -> Iterator[Section]:
    """The layers by pattern, the worst by each number, and what the columns mean."""
    asked, found = asked_of(layers), list(summaries(layers))
    left_out = found[MOST_PATTERNS:]
    if left_out:
        largest = sorted(found, key=lambda one: one.parameters, reverse=True)[:MOST_PATTERNS]
        found = [one for one in found if one in largest]
    blocks: list[Block] = [_patterns(found, asked)]
    if left_out:
        blocks.append(Note(f"and {count(len(left_out))} more patterns, of fewer parameters", tone="aside"))
    yield Section(tuple(blocks))
    yield Section((_worst(layers, asked),))
    explained = [f"{one.question.title}{one.question.legend}" for one in asked if one.question.legend]
    texts = (("patterns", LEGEND), ("numbers", f"{'; '.join(explained)}."))
    yield Section(tuple(Note(text, label, tone="aside") for label, text in texts if asked))


def _patterns(found: Sequence[PatternSummary], asked: Sequence[Asked]) -> Table:
    facts = (
        Column("layers", tuple(count(len(one.layers)) for one in found)),
        Column("shape", tuple(_shape(one.layers) for one in found), align="left"),
    )
    by_analysis: dict[str, list[Column]] = {}
    for one in asked:
        columns = by_analysis.setdefault(one.analysis, [])
        columns += _numbers(found, one) if not columns else [_median(found, one)]
    titles = {one.name: f"{one.title.partition(',')[0]} by pattern" for one in layer_analyses()}
    groups = [Group(titles[name], tuple(columns)) for name, columns in by_analysis.items()] or [Group(TITLE, ())]
    groups[0] = Group(groups[0].title, (*facts, *groups[0].columns))
    return Table(tuple(one.pattern for one in found), tuple(groups), "pattern")


def _shape(layers: Sequence[LayerResult]) -> str:
    shapes = {layer.shape for layer in layers}
    return shape(shapes.pop()) if len(shapes) == 1 else "several"


def _median(found: Sequence[PatternSummary], asked: Asked) -> Column:
    """One column for a number that is not the first of its analysis: the worst layers are in a list of their own."""
    values = ((one, asked.worst(one.layers)) for one in found)
    cells = (ABSENT if not worst else _typical(one, worst[0], asked) for one, worst in values)
    return Column(asked.question.title, tuple(cells))


def _typical(one: PatternSummary, worst: LayerResult, asked: Asked) -> str:
    return asked.text(worst) if len(one.layers) == 1 else short(asked.median(one.layers))


def _numbers(found: Sequence[PatternSummary], asked: Asked) -> list[Column]:
    """The columns of the first number of an analysis."""
    cells = [_row(one, asked) for one in found]
    titles = (asked.question.title, "worst", "at", "over the depth")
    columns = zip(titles, zip(*cells, strict=True), strict=True)
    left = ("at", "over the depth")
    return [Column(title, column, align="left" if title in left else "right") for title, column in columns]


def _row(one: PatternSummary, asked: Asked) -> tuple[str, str, str, str]:
    worst = asked.worst(one.layers)
    if not worst:
        return ABSENT, ABSENT, ABSENT, ABSENT
    typical = _typical(one, worst[0], asked)
    if len(one.layers) == 1:
        return typical, ABSENT, ABSENT, ABSENT
    place = place_of(worst[0].name, one.pattern) or ABSENT
    return typical, asked.text(worst[0]), place, _over_depth(one.layers, asked)


def _over_depth(layers: Sequence[LayerResult], asked: Asked) -> str:
    """The layers' numbers in the model's order; of more than there are cells, the worst of neighbours."""
    values: list[float | None] = []
    cells = min(SPARK, len(layers))
    singular = all(asked.value(layer) in (None, math.inf) for layer in layers)
    for cell in range(cells):
        near = layers[cell * len(layers) // cells : (cell + 1) * len(layers) // cells]
        worst = asked.worst(near)
        values.append(_drawn(asked, worst[0], singular) if worst else None)
    finite = [value for value in values if value is not None and math.isfinite(value)]
    return sparkline(values, min(finite, default=0.0), max(finite, default=0.0), SPARK)


def _drawn(asked: Asked, layer: LayerResult, singular: bool) -> float | None:
    """The layer's number; where all of the row are infinite, the one over the range."""
    rank = asked.rank(layer)
    return rank[1] or None if singular and rank is not None else asked.value(layer)


def _worst(layers: Sequence[LayerResult], asked: Sequence[Asked]) -> Table:
    """The worst layers by each number beside each other, a row per rank; layers that are as good as the best are left
    out."""
    lists = [_worse(layers, one) for one in asked]
    groups = []
    asked = [one for one, found in zip(asked, lists, strict=True) if found]
    lists = [found for found in lists if found]
    for one, column in zip(asked, zip(*zip_longest(*lists), strict=True), strict=True):
        names = tuple(ABSENT if layer is None else layer.name for layer in column)
        texts = tuple(ABSENT if layer is None else one.text(layer) for layer in column)
        end = "lowest" if one.question.lowest else "largest"
        pair = (Column(f"{end} {one.question.title}", names, align="left", names=True), Column("", texts))
        groups.append(Group("Worst layers", pair))
    rows = tuple(map(str, range(1, 1 + max(map(len, lists), default=0))))
    return Table(rows, tuple(groups), "")


def _worse(layers: Sequence[LayerResult], asked: Asked) -> list[LayerResult]:
    """The `WORST` worst layers that are worse than the best one."""
    ranks = [rank for layer in layers if (rank := asked.rank(layer)) is not None]
    return [layer for layer in asked.worst(layers, WORST) if asked.rank(layer) != min(ranks)]
