"""The analysis `tnt`: spectra of the tensor-normal factors Ũ_i of a parameter and of their Kronecker product (Ren 2022,
eq. 4.10), with split-half errors."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from curvlab.analyses.definition import LayerAnalysis
from curvlab.analyses.layer_data import LayerData, LayerStatistics
from curvlab.analyses.needs import Needs
from curvlab.analyses.registry import register
from curvlab.analyses.spectrum_text import spectrum_question, spectrum_text
from curvlab.analyses.split_half import with_split_half
from curvlab.capture.survey import Survey
from curvlab.curvatures.blocks import PreconditionerBlock
from curvlab.curvatures.tensor_normal import TensorNormalCurvature
from curvlab.document.numbers import ABSENT, condition
from curvlab.document.table import Quantity
from curvlab.operators.operator import Kronecker
from curvlab.operators.spectrum import kronecker_spectra
from curvlab.operators.summary import QUANTILE_LEVELS, Spectrum

if TYPE_CHECKING:
    from curvlab.analyses.settings import Settings
    from curvlab.formats.checkpoint import Checkpoint


class WeightFactors(TensorNormalCurvature):
    """The factors of every layer's main weight alone: those of biases are not shown."""

    def profiled(self, found: Survey) -> list[PreconditionerBlock]:
        """The first parameter of every layer, or the part of it that the layer sees."""
        weights = {next(iter(block.parameters.values())) for block in found.blocks.values()} | found.blocks.keys()
        return [one for one in super().profiled(found) if one.name in weights]


@dataclass(frozen=True)
class TensorNormalResult:
    """Spectra of the tensor-normal factors Ũ_i (Ren 2022, eq. 4.10) of one parameter tensor and of their Kronecker
    product."""

    statistic: str
    modes: tuple[Spectrum | None, ...]
    kronecker: Spectrum | None
    note: str | None = None


def tensor_normal_result(
    parameter: str, statistic: str, whole: LayerStatistics, halves: Sequence[LayerStatistics]
) -> TensorNormalResult | None:
    """The tensor-normal block of one parameter; None if no gradient reached it."""
    spectra = _spectra(parameter, whole)
    if spectra is None:
        return None
    parts = [found for half in halves if (found := _spectra(parameter, half, levels=())) is not None]
    if len(parts) == 2:
        spectra = tuple(with_split_half(*three) for three in zip(spectra, *parts, strict=True))
    return TensorNormalResult(statistic, spectra[:-1], spectra[-1])


def _spectra(
    parameter: str, part: LayerStatistics, levels: Sequence[float] = QUANTILE_LEVELS
) -> tuple[Spectrum, ...] | None:
    """Spectra of every mode and, last, of their Kronecker product."""
    average = part.average(TensorNormalCurvature.name, parameter)
    operator = None if average is None else average.operator
    if average is None or not isinstance(operator, Kronecker):
        return None
    # Each example brings as many rows to a mode as the other modes have entries.
    rows = [part.examples * math.prod(average.block.shape) // factor.size for factor in operator.factors]
    return kronecker_spectra(operator.factors, rows, levels)


def _modes(tnt: TensorNormalResult) -> str:
    numbers = (ABSENT if mode is None else condition(mode.condition_number) for mode in tnt.modes)
    return " · ".join(numbers) or ABSENT


@register
class TensorNormal(LayerAnalysis):
    """The tensor-normal curvature of every layer's weight."""

    name = "tnt"
    help = "spectra of the tensor-normal factors of every layer's weight, one per mode, and of their product"
    result = TensorNormalResult
    by_default = True
    title = "Curvature factors"
    quantities = (
        Quantity("κ(Ũ)", _modes, " of each tensor-normal factor of the weight"),
        Quantity("κ(TN)", lambda t: spectrum_text(t.kronecker), " of their Kronecker product"),
    )
    questions = (spectrum_question("κ(TN)", "kronecker", " of the tensor-normal factors' product"),)
    reads = ("loss", "fisher_type", "mc_samples", "statistic")
    settings_shown: ClassVar[Mapping[str, str]] = {"fisher type": "fisher_type", "tensor-normal": "statistic"}

    def needs(self, settings: Settings, checkpoint: Checkpoint) -> Needs:
        """Contractions of the weights' gradients."""
        if settings.fisher_type == "forward-only":
            return Needs()
        return Needs((WeightFactors(settings.statistic, largest_mode=sys.maxsize, keep_rows=True),))

    def run(self, layer: LayerData) -> TensorNormalResult | None:
        """The result for the layer's main weight; None if no gradient reached it."""
        if layer.whole is None:
            return None
        tensor = layer.row.weight if layer.row.seen is None else layer.row.name
        return tensor_normal_result(tensor, layer.settings.statistic, layer.whole, layer.halves)
