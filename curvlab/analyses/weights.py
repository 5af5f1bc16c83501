"""The analysis `weights`: what the singular values of a weight say, read from the file alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING, ClassVar

from curvlab.analyses.condition_figure import condition_figure
from curvlab.analyses.definition import LayerAnalysis
from curvlab.analyses.estimate import BlockEstimate
from curvlab.analyses.layer_data import LayerData
from curvlab.analyses.question import Question, infinite
from curvlab.analyses.ranking import Rank, Rankings, by_condition, by_number
from curvlab.analyses.registry import register
from curvlab.analyses.weight_batches import in_batches
from curvlab.analyses.weight_statistics import WeightsResult, stacked_statistics, weight_statistics
from curvlab.document.figure import Figure
from curvlab.document.numbers import ABSENT, condition, count, short
from curvlab.document.table import Quantity

if TYPE_CHECKING:
    from curvlab.analyses.analysis_plan import AnalysisPlan
    from curvlab.analyses.results import Analysis
    from curvlab.formats.checkpoint import Checkpoint


def _shown(weights: WeightsResult) -> str:
    """κ(W); a weight that was too large, or is not finite, has no rank, and a κ that is unknown and not infinite."""
    return ABSENT if weights.rank is None else condition(weights.condition_number, weights.condition_number_nonzero)


def _condition(weights: WeightsResult) -> float | None:
    return None if weights.rank is None else infinite(weights.condition_number)


def _worst(weights: WeightsResult) -> str:
    """κ(W), or that there are entries without a value."""
    return f"{count(weights.nonfinite)} nonfinite" if weights.nonfinite else _shown(weights)


def _share(weights: WeightsResult) -> float | None:
    return weights.effective_rank / weights.size if weights.effective_rank and weights.size else None


def _rank(weights: WeightsResult) -> Rank | None:
    """A weight with entries that are not finite is worse than any; None where the condition number was not computed."""
    if weights.nonfinite:
        return math.inf, math.inf
    return None if weights.rank is None else by_condition(weights.condition_number, weights.condition_number_nonzero)


@register
class Weights(LayerAnalysis):
    """Singular values of every weight; needs nothing but the file."""

    name = "weights"
    help = "singular values of every weight, their ranks and tail; from the file alone"
    result = WeightsResult
    data = "unused"
    by_default = True
    title = "Weights"
    quantities = (
        Quantity("σ max", lambda w: short(w.spectral_norm), ": largest singular value"),
        Quantity("stable rank", lambda w: short(w.stable_rank), " = Σσ²/σ²max"),
        Quantity("eff. rank", lambda w: short(w.effective_rank), " = exp(entropy of σ²/Σσ²)"),
        Quantity("κ(W)", _shown, " = σmax/σmin"),
        Quantity("tail α", lambda w: short(w.tail_exponent), ": power law of the largest σ²"),
        Quantity(
            "nonfinite",
            lambda w: count(w.nonfinite) if w.nonfinite else ABSENT,
            ": entries that are NaN or infinite",
        ),
    )
    questions = (
        Question("κ(W)", "condition_number", _condition, _worst, " = σmax/σmin", ranked=_rank),
        Question(
            "eff. rank",
            "effective_rank_share",
            _share,
            lambda w: f"{short(w.effective_rank)}/{w.size}",
            " = exp(entropy of σ²/Σσ²), as a share of the size",
            lowest=True,
        ),
    )
    rankings: ClassVar[Rankings] = {
        "condition": _rank,
        "stable-rank": by_number("stable_rank"),
        "effective-rank": by_number("effective_rank"),
        "tail": by_number("tail_exponent"),
    }

    def begin(self, layers: Sequence[LayerData]) -> Callable[[LayerData], WeightsResult]:
        """Small weights of one shape together."""
        if not layers:
            return self.run
        profiles = in_batches([layer.row for layer in layers], layers[0].tensors, layers[0].shapes, stacked_statistics)

        def following(layer: LayerData) -> WeightsResult:
            result = next(profiles, None)  # ends with the first weight that fails
            return self.run(layer) if result is None else result

        return following

    def run(self, layer: LayerData) -> WeightsResult:
        """The profile of the layer's main weight."""
        weight, transposed = layer.weight()
        return weight_statistics(weight, groups=layer.row.groups, transposed=transposed)

    def estimate(self, plan: AnalysisPlan) -> Iterator[BlockEstimate]:
        """The Gram matrix of the smaller side of every weight (docs/curvature.md); left out beside statistics of the
        data, which are far larger."""
        for row in plan.rows if plan.data_pass is None else ():
            shape = row.shape(plan.shapes)
            size = prod(shape)
            height = size if row.groups == size else shape[0] if shape else 1
            width = size // height if height else 0
            small, large = sorted((height // row.groups, width))
            memory, work = 8 * row.groups * small**2, float(row.groups * large * small**2)
            sides = (height, width) if row.transposed else (width, height)
            yield BlockEstimate(row.name, row.kind, *sides, 1, memory, work)

    def figures(self, analysis: Analysis, checkpoint: Checkpoint | None) -> Iterator[Figure]:
        """κ(W) of every weight of full rank."""
        known = [layer for layer in analysis.layers if layer.weights and layer.weights.condition_number]
        bars = {"weight": [(layer.weights.condition_number, False) for layer in known]}
        figure = condition_figure([layer.name for layer in known], bars, "weights")
        if figure is not None:
            yield figure
