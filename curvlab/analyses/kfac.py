"""The analysis `kfac`: spectra of a layer's factors A and G and of the block G ⊗ A, with split-half errors
(docs/curvature.md)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from curvlab.analyses.definition import LayerAnalysis
from curvlab.analyses.layer_data import LayerData, LayerStatistics
from curvlab.analyses.needs import Needs
from curvlab.analyses.ranking import Rank, Ranking, Rankings, by_condition
from curvlab.analyses.registry import register
from curvlab.analyses.spectrum_text import spectrum_question, spectrum_text
from curvlab.analyses.split_half import with_split_half
from curvlab.curvatures.kronecker_factors import identity_factor, kronecker_factors, recipes
from curvlab.document.figure import Axis, Curve, Figure, Panel
from curvlab.document.numbers import short
from curvlab.document.table import Quantity
from curvlab.layers.layer import Layer
from curvlab.operators.operator import Operator
from curvlab.operators.spectrum import kronecker_spectra
from curvlab.operators.summary import QUANTILE_LEVELS, Spectrum

if TYPE_CHECKING:
    from curvlab.analyses.results import Analysis
    from curvlab.analyses.settings import Settings
    from curvlab.formats.checkpoint import Checkpoint

Factors = tuple[Operator, Operator]
"""A and G."""

_REDUCED = "A=1/N sum_n, G=1/N sum_n (reduce: a averaged, g summed over t)"


@dataclass(frozen=True)
class KfacResult:
    """Spectra of a layer's K-FAC factors A (input) and G (gradient) and of G ⊗ A."""

    input_factor: Spectrum | None
    gradient_factor: Spectrum | None
    kronecker: Spectrum | None
    pi: float | None
    normalization: str = "A=1/N sum_nt, G=1/(NT) sum_nt"
    note: str | None = None


def kfac_result(
    layer: Layer, settings: Settings, whole: LayerStatistics, halves: Sequence[LayerStatistics]
) -> KfacResult | None:
    """The K-FAC block of a layer; None if no gradient reached it."""
    factors = kfac_operators(layer, settings, whole)
    if factors is None:
        return None
    a, g, both = kronecker_spectra(factors, whole.rows)
    parts = [kfac_operators(layer, settings, half) for half in halves]
    if len(parts) == 2 and parts[0] is not None and parts[1] is not None:
        first, second = (
            kronecker_spectra(part, half.rows, levels=()) for part, half in zip(parts, halves, strict=True) if part
        )
        a, g, both = (with_split_half(*three) for three in zip((a, g, both), first, second, strict=True))
    result = KfacResult(a, g, both, _pi(a, g))
    return replace(result, normalization=_REDUCED) if settings.kfac_approx == "reduce" else result


def kfac_operators(layer: Layer, settings: Settings, part: LayerStatistics) -> Factors | None:
    """A and G of one layer in the form they were stored in; None where no gradient came."""
    averages = [part.average(one.name) for one in recipes(settings.kfac_approx)]
    if averages[0] is None:
        return None
    a, g = kronecker_factors(averages, part.rows / part.examples)
    if g is None and settings.fisher_type == "forward-only" and settings.kfac_approx == "expand":
        g = identity_factor(layer)
    return None if g is None else (a, g)


def _pi(a: Spectrum, g: Spectrum) -> float | None:
    """π = √((tr A/d_A) / (tr G/d_G)): how factored damping is shared (Grosse 2021, eq. 24)."""
    if not a.trace or not g.trace:
        return None
    return math.sqrt((a.trace / a.size) / (g.trace / g.size))


def _shown(name: str) -> Callable[[KfacResult], str]:
    return lambda kfac: spectrum_text(getattr(kfac, name))


def _rank(name: str) -> Ranking:
    def rank(kfac: KfacResult) -> Rank | None:
        factor: Spectrum | None = getattr(kfac, name)
        return None if factor is None else by_condition(factor.condition_number, factor.condition_number_nonzero)

    return rank


@register
class Kfac(LayerAnalysis):
    """The Kronecker-factored curvature of every layer."""

    name = "kfac"
    help = "spectra of K-FAC's input factor A, gradient factor G and their product, layer by layer"
    result = KfacResult
    by_default = True
    title = "Curvature factors"
    quantities = (
        Quantity("κ(A)", _shown("input_factor"), " of K-FAC's input factor"),
        Quantity("κ(G)", _shown("gradient_factor"), " of its gradient factor"),
        Quantity("κ(G⊗A)", _shown("kronecker"), " of its block"),
        Quantity("π", lambda k: short(k.pi), " = √((tr A/dA)/(tr G/dG))"),
    )
    questions = (spectrum_question("κ(G⊗A)", "kronecker", " of K-FAC's block"),)
    rankings: ClassVar[Rankings] = {
        "condition": _rank("kronecker"),
        "input-factor": _rank("input_factor"),
        "gradient-factor": _rank("gradient_factor"),
        "kronecker": _rank("kronecker"),
    }
    reads = ("loss", "fisher_type", "mc_samples", "kfac_approx")
    settings_shown: ClassVar[Mapping[str, str]] = {"fisher type": "fisher_type", "K-FAC": "kfac_approx"}

    def needs(self, settings: Settings, checkpoint: Checkpoint) -> Needs:
        """Both factors."""
        return Needs(tuple(recipes(settings.kfac_approx)))

    def run(self, layer: LayerData) -> KfacResult | None:
        """None if no gradient reached the layer."""
        return None if layer.whole is None else kfac_result(layer.layer, layer.settings, layer.whole, layer.halves)

    def figures(self, analysis: Analysis, checkpoint: Checkpoint | None) -> Iterator[Figure]:
        """Eigenvalues of A and G by their quantiles, a line per layer, zeros left out."""
        layers = [layer for layer in analysis.layers if layer.kfac is not None]
        levels = tuple(analysis.settings.get("quantile_levels", QUANTILE_LEVELS))
        panels = []
        for field, title in (("input_factor", "input factor A"), ("gradient_factor", "gradient factor G")):
            curves = []
            for place, layer in enumerate(layers):
                spectrum: Spectrum | None = getattr(layer.kfac, field)
                if spectrum is not None and spectrum.quantiles and len(spectrum.quantiles) == len(levels):
                    values = tuple(value if value > 0 else None for value in spectrum.quantiles)
                    curves.append(Curve(layer.name, levels, values, place, marker="o"))
            panels.append(Panel(title, Axis("quantile"), Axis("eigenvalue", "log"), tuple(curves)))
        if layers:
            title = "Eigenvalues of the curvature factors"
            yield Figure("spectra", tuple(panels), title, (5.2, 4.2), "depth", "last")
