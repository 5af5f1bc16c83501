"""Coverage: how far each block got, and why no further. Silence about a layer would be a wrong number about the
model."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from curvlab.analyses.analysis_plan import AnalysisPlan
from curvlab.analyses.definition import LayerAnalysis
from curvlab.analyses.layer_rows import LayerRow
from curvlab.analyses.results import BlockCoverage, Coverage, LayerResult


def coverage_of(plan: AnalysisPlan, layers: Sequence[LayerResult]) -> Coverage:
    """One line per row: "analyzed" (all that was asked), "fallback" (some of it), "weights-only", or "skipped".

    The totals count a tensor that several rows share once.
    """
    blocks = [_line(plan, row, layer) for row, layer in zip(plan.rows, layers, strict=True)]
    everything, reached = set[str](), dict[str, int]()
    for row, block in zip(plan.rows, blocks, strict=True):
        everything.update(row.tensors)
        if block.status in ("analyzed", "fallback"):
            for name in row.tensors:
                reached[name] = reached.get(name, 0) + row.size(name, plan.shapes)
    return Coverage(
        parameters=sum(prod(plan.shapes[name]) for name in everything),
        analyzed=sum(min(seen, prod(plan.shapes[name])) for name, seen in reached.items()),
        blocks=tuple(blocks),
    )


def _line(plan: AnalysisPlan, row: LayerRow, layer: LayerResult) -> BlockCoverage:
    reasons = [why for why in (row.reason, plan.left_out.get(row.name)) if why]
    if row.block is not None and row.block.layer.road is not None:
        reasons.append(row.block.layer.road)
    if row.block is not None and row.block.tied and row.seen is None:
        reasons.append(f"shares parameters with {', '.join(row.block.tied)}: factors are of this use")
    if _on_data(plan, layer):
        less = row.name in plan.left_out or (row.block is not None and row.block.layer.road is not None)
        status = "fallback" if less else "analyzed"
    else:
        status = "weights-only" if layer.results else "skipped"
        if row.block is not None and not reasons:
            reasons.append("it was recorded, but no statistic of it was asked for")
    return BlockCoverage(row.name, status, "; ".join(reasons) or None, layer.parameters)


def _on_data(plan: AnalysisPlan, layer: LayerResult) -> bool:
    of_layers = (one for one in plan.chosen if isinstance(one, LayerAnalysis) and one.name in layer.results)
    return any(one.on_data(layer.results[one.name]) for one in of_layers)
