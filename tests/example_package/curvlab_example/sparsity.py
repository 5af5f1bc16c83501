"""The analysis `sparsity`: share of a weight's entries that are zero, and of a layer's inputs that are never used."""

from __future__ import annotations

from dataclasses import dataclass

from curvlab.analyses.definition import LayerAnalysis
from curvlab.analyses.needs import Needs
from curvlab.analyses.ranking import by_number
from curvlab.analyses.registry import register
from curvlab.curvatures.input_moments import InputMoments
from curvlab.document.figure import Axis, Bars, Figure, Panel
from curvlab.document.table import Quantity
from curvlab.operators.diagonal import diagonal


@dataclass(frozen=True)
class SparsityResult:
    """`weight` of [0, 1] is the share of zeros; `inputs` that of the features with E[a²] = 0, None without data."""

    weight: float
    inputs: float | None


@register
class Sparsity(LayerAnalysis):
    """Zeros in weights and inputs."""

    name = "sparsity"
    help = "share of zeros in every weight, and of inputs that are always zero"
    result = SparsityResult
    data = "used"
    title = "Sparsity"
    quantities = (Quantity("zeros", lambda s: f"{100 * s.weight:.0f}%", ": share of the weight's entries that are 0"),)
    rankings = {"sparsity": by_number("weight")}  # noqa: RUF012

    def needs(self, settings, checkpoint):
        return Needs((InputMoments(),))

    def run(self, layer):
        weight, _ = layer.weight()
        inputs = None
        moments = None if layer.whole is None else layer.whole.average(InputMoments.name)
        if moments is not None:
            inputs = (diagonal(moments.operator) == 0).double().mean().item()
        return SparsityResult((weight == 0).double().mean().item(), inputs)

    def on_data(self, result):
        return result.inputs is not None

    def figures(self, analysis, checkpoint):
        found = [layer for layer in analysis.layers if layer.sparsity is not None]
        bars = Bars("zeros", tuple(layer.sparsity.weight for layer in found))
        ticks = tuple(enumerate(layer.name for layer in found))
        yield Figure("sparsity", (Panel("Zeros", Axis(ticks=ticks), Axis("share"), bars=(bars,)),))
