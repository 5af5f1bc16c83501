"""The order of a table's rows: the model's own, or by one number, the largest first."""

from __future__ import annotations

from collections.abc import Sequence

from curvlab.analyses.ranking import Rank
from curvlab.analyses.registry import layer_analyses
from curvlab.analyses.results import LayerResult


def ordered(layers: Sequence[LayerResult], sort: str) -> list[LayerResult]:
    """`layers` in that order; equal ones stay in the model's order, and those without the number come last.

    "condition" takes the condition number of a layer's G ⊗ A, else of its features, else of its weight. An infinite
    one is above all others, above them only that of a weight with entries that are not finite; singular matrices are
    compared by their condition over their range.
    """
    if sort == "model":
        return list(layers)
    if sort == "name":
        return sorted(layers, key=lambda layer: layer.name)
    ranked = [(_rank(layer, sort), layer) for layer in layers]
    known = sorted(((rank, layer) for rank, layer in ranked if rank), key=lambda pair: pair[0], reverse=True)
    return [layer for _, layer in known] + [layer for rank, layer in ranked if rank is None]


def _rank(layer: LayerResult, sort: str) -> Rank | None:
    """The rank by the last of the analyses that have one."""
    if sort == "parameters":
        return float(layer.parameters), 0.0
    for one in reversed(layer_analyses()):
        if sort in one.rankings and one.name in layer.results:
            rank = one.rankings[sort](layer.results[one.name])
            if rank is not None:
                return rank
    return None
