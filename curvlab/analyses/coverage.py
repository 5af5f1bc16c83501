"""Coverage: how far each block got, and why no further. Silence about a layer would be a wrong number about the
model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from curvlab.analyses.entries import Entry
from curvlab.analyses.results import BlockCoverage, Coverage, LayerResult


def coverage_of(
    entries: Sequence[Entry],
    layers: Sequence[LayerResult],
    left_out: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
) -> Coverage:
    """One line per entry: "analyzed" (all that was asked), "fallback" (some of it), "weights-only", or "skipped".

    The totals count a tensor that several entries share once.
    """
    blocks = [_line(entry, layer, left_out) for entry, layer in zip(entries, layers, strict=True)]
    everything, reached = set[str](), set[str]()
    for entry, block in zip(entries, blocks, strict=True):
        everything.update(entry.tensors)
        if block.status in ("analyzed", "fallback"):
            reached.update(entry.tensors)
    return Coverage(
        parameters=sum(prod(shapes[name]) for name in everything),
        analyzed=sum(prod(shapes[name]) for name in reached),
        blocks=tuple(blocks),
    )


def _line(entry: Entry, layer: LayerResult, left_out: Mapping[str, str]) -> BlockCoverage:
    reasons = [why for why in (entry.reason, left_out.get(entry.name)) if why]
    on_data = layer.moments is not None or layer.kfac is not None or layer.tnt is not None
    if entry.block is not None and entry.block.tied:
        reasons.append(f"shares parameters with {', '.join(entry.block.tied)}: factors are of this use")
    if on_data:
        status = "fallback" if entry.name in left_out else "analyzed"
    else:
        status = "weights-only" if layer.weights is not None else "skipped"
        if entry.block is not None and not reasons:
            reasons.append("it was recorded, but no statistic of it was asked for")
    return BlockCoverage(entry.name, status, "; ".join(reasons) or None, layer.parameters)
