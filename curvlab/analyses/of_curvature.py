"""An analysis of any registered curvature that has an operator to show: its spectrum in every layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from curvlab.analyses.definition import LayerAnalysis
from curvlab.analyses.layer_data import LayerData, LayerStatistics
from curvlab.analyses.needs import Needs
from curvlab.analyses.ranking import Rank, Rankings, by_condition
from curvlab.analyses.registry import ANALYSES, register
from curvlab.analyses.spectrum_text import spectrum_question, spectrum_text
from curvlab.analyses.split_half import with_split_half
from curvlab.curvatures.curvature import Curvature
from curvlab.curvatures.registry import CURVATURES
from curvlab.document.numbers import short
from curvlab.document.table import Quantity
from curvlab.operators.spectrum import spectrum
from curvlab.operators.summary import QUANTILE_LEVELS, Spectrum

if TYPE_CHECKING:
    from curvlab.analyses.settings import Settings
    from curvlab.formats.checkpoint import Checkpoint


@dataclass(frozen=True)
class CurvatureResult:
    """The spectrum of a curvature's block of one layer."""

    block: Spectrum


def _shown(result: CurvatureResult) -> str:
    return spectrum_text(result.block)


def _rank(result: CurvatureResult) -> Rank | None:
    return by_condition(result.block.condition_number, result.block.condition_number_nonzero)


class CurvatureAnalysis(LayerAnalysis):
    """Spectra of the blocks of the curvature that a subclass names."""

    result = CurvatureResult
    title = "Curvature"
    rankings: ClassVar[Rankings] = {"condition": _rank}
    reads = ("loss", "fisher_type", "mc_samples")

    def needs(self, settings: Settings, checkpoint: Checkpoint) -> Needs:
        """The averages of the recipe."""
        return Needs((CURVATURES[self.name](),))

    def run(self, layer: LayerData) -> CurvatureResult | None:
        """None if nothing of the layer was reached."""
        whole = None if layer.whole is None else self._spectrum(layer.whole)
        if whole is None:
            return None
        halves = [found for half in layer.halves if (found := self._spectrum(half, ())) is not None]
        return CurvatureResult(with_split_half(whole, *halves) if len(halves) == 2 else whole)

    def _spectrum(self, part: LayerStatistics, levels: Sequence[float] = QUANTILE_LEVELS) -> Spectrum | None:
        average = part.average(self.name)
        operator = None if average is None else average.operator
        return None if operator is None else spectrum(operator, part.rows, levels)


def analysis_of(kind: type[Curvature]) -> type[CurvatureAnalysis]:
    """The class of the analysis that shows a recipe."""
    symbol = kind.name
    return type(
        f"{kind.__qualname__}Analysis",
        (CurvatureAnalysis,),
        {
            "__doc__": kind.__doc__,
            "__module__": kind.__module__,
            "name": kind.name,
            "help": kind.help or f"spectra of the curvature {kind.name}, layer by layer",
            "title": f"Curvature: {kind.name}",
            "questions": (spectrum_question(f"κ({symbol})", "block", " of the layer's block"),),
            "quantities": (
                Quantity(f"κ({symbol})", _shown, " of the layer's block"),
                Quantity(f"tr({symbol})", lambda r: short(r.block.trace), ": its trace"),
            ),
        },
    )


def _follow(name: str, kind: type[Curvature]) -> None:
    shows = kind.operator is not Curvature.operator and not kind.of_gradient
    if shows and not ANALYSES.knows(name):
        register(analysis_of(kind))


def follow() -> None:
    """From now on every registered curvature with an operator is an analysis, unless one has its name already."""
    CURVATURES.follow(_follow)
    CURVATURES.plugins()
