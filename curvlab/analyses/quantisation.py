"""The analysis `quantisation`: what makes a layer hard to quantise, its weight and its inputs (docs/quantisation.md).

M = E[aaᵀ] is the second moment of the layer's inputs without the 1 of a bias: up to a factor the Hessian H = 2 XXᵀ that
GPTQ and its relatives factorise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from curvlab.analyses.definition import LayerAnalysis
from curvlab.analyses.estimate import BlockEstimate
from curvlab.analyses.features import constant_features, duplicated_features
from curvlab.analyses.gptq_damping import damping
from curvlab.analyses.layer_data import LayerData
from curvlab.analyses.name_patterns import named
from curvlab.analyses.needs import Needs
from curvlab.analyses.question import Question
from curvlab.analyses.ranking import Rank, Ranking, Rankings
from curvlab.analyses.registry import register
from curvlab.analyses.weight_batches import in_batches
from curvlab.analyses.weight_outliers import WeightRange, outliers, stacked_ranges
from curvlab.analyses.weight_statistics import weight_blocks
from curvlab.curvatures.input_moments import InputMoments as InputMomentsRecipe
from curvlab.document.figure import Axis, Bars, Figure, Panel, worst_of, worst_places
from curvlab.document.numbers import ABSENT, short
from curvlab.document.table import Quantity
from curvlab.errors import NumericalError
from curvlab.operators.diagonal import diagonal
from curvlab.operators.spectrum import spectrum
from curvlab.shapes import Num

if TYPE_CHECKING:
    from curvlab.analyses.analysis_plan import AnalysisPlan
    from curvlab.analyses.results import Analysis
    from curvlab.analyses.settings import Settings
    from curvlab.formats.checkpoint import Checkpoint

FACTORISATIONS = 16
"""At most so many, for `--dry-run`."""
MOST_BYTES = 4 * 2**30
"""What the matrices of one layer may take when no memory limit is set."""
MOST_DRAWN = 40
"""Layers in the picture: the worst ones, in the model's order."""


@dataclass(frozen=True)
class InputMoments:
    """What a solver with M = E[aaᵀ] meets, over `count` rows of inputs.

    `rank` counts the eigenvalues of M that are not rounding, out of its `size`. `dead` inputs never vary (a bias can
    take their column over), of which `zero` are always 0, what GPTQ calls dead; `duplicated` copy an earlier one.
    `channel_ratio` = max M_jj / median M_jj over the inputs that are not always 0, `outlier_channels` counts those
    above `OUTLIER` times the median, `worst_channel` is the place of the largest. `damping` and `stock_bias` are
    `smallest_damping` and `damping_bias` at 1 %; None where M would not fit the memory.
    """

    count: int
    size: int
    rank: int
    dead: int
    zero: int
    duplicated: int
    channel_ratio: float | None
    outlier_channels: int
    worst_channel: int
    damping: float | None
    stock_bias: float | None


@dataclass(frozen=True)
class QuantisationResult:
    """The weight and the inputs of one layer; None for what was not there, with the reason in `note`."""

    weight: WeightRange | None
    inputs: InputMoments | None
    note: str | None = None


def input_moments(layer: LayerData, weight: Num[Tensor, "g o i"] | None) -> InputMoments | None:
    """The inputs of one layer; None without data. `weight` is what the damping's bias is of, None for no bias."""
    average = None if layer.whole is None else layer.whole.average(InputMomentsRecipe.name)
    if layer.whole is None or average is None or average.operator is None:
        return None
    second, mean, count = average.operator, average.state["mean"], layer.whole.rows
    rank = spectrum(second, count, levels=()).rank  # refuses moments that are not finite, before they are factorised
    energy = diagonal(second)
    ratio, loud = outliers(energy[energy > 0]) if bool((energy > 0).any()) else (None, 0)
    least, bias = damping(second, weight, layer.settings.max_memory or MOST_BYTES)
    return InputMoments(
        count=count,
        size=second.size,
        rank=rank,
        dead=int(constant_features(second, mean).sum()),
        zero=int((energy == 0).sum()),
        duplicated=duplicated_features(second, mean),
        channel_ratio=ratio,
        outlier_channels=loud,
        worst_channel=int(energy.argmax()),
        damping=least,
        stock_bias=bias,
    )


def _weight(field: str) -> Callable[[QuantisationResult], str]:
    return lambda result: ABSENT if result.weight is None else short(getattr(result.weight, field))


def _inputs(show: Callable[[InputMoments], str]) -> Callable[[QuantisationResult], str]:
    return lambda result: ABSENT if result.inputs is None else show(result.inputs)


def _percent(value: float | None) -> str:
    return ABSENT if value is None else f"{short(100 * value)}%"


def _by_inputs(field: str) -> Ranking:
    def rank(result: QuantisationResult) -> Rank | None:
        value = None if result.inputs is None else getattr(result.inputs, field)
        return None if value is None else (value, 0.0)

    return rank


def _outlier_ratio(result: QuantisationResult) -> float | None:
    rank = _by_outliers(result)
    return None if rank is None else rank[0]


def _by_outliers(result: QuantisationResult) -> Rank | None:
    """The larger of the ratios of rows and of columns."""
    found = () if result.weight is None else (result.weight.row_ratio, result.weight.column_ratio)
    known = [ratio for ratio in found if ratio is not None]
    return (max(known), min(known)) if known else None


@register
class Quantisation(LayerAnalysis):
    """How hard each layer is to quantise; from the file alone the weight, on data the inputs too."""

    name = "quantisation"
    help = "how hard layers are to quantise: outliers of weights and inputs, and the damping that GPTQ-like tools need"
    result = QuantisationResult
    data = "used"
    title = "Quantisation"
    quantities = (
        Quantity("max |w|", _weight("largest"), ": largest entry of the weight"),
        Quantity("kurtosis", _weight("kurtosis"), " of its entries, 3 for normal numbers"),
        Quantity("rows", _weight("row_ratio"), ": largest |w| of a row, over that of the median row"),
        Quantity("columns", _weight("column_ratio"), ": the same of columns"),
        Quantity("rank", _inputs(lambda i: f"{i.rank}/{i.size}"), " of the inputs' M, without the bias's 1"),
        Quantity("dead", _inputs(lambda i: str(i.dead)), ": inputs that never vary"),
        Quantity("twins", _inputs(lambda i: str(i.duplicated)), ": inputs that copy another"),
        Quantity("channels", _inputs(lambda i: short(i.channel_ratio)), ": largest E[a²] of an input, over the median"),
        Quantity("percdamp", _inputs(lambda i: short(i.damping)), ": least damping for a float32 Cholesky of M"),
        Quantity("1% costs", _inputs(lambda i: _percent(i.stock_bias)), " so much of the layer's output"),
    )
    questions = (
        Question(
            "outliers",
            "weight.outlier_ratio",
            _outlier_ratio,
            lambda result: short(_outlier_ratio(result)),
            ": the larger ratio of the weight's rows or columns",
        ),
        Question(
            "channels",
            "inputs.channel_ratio",
            lambda result: result.inputs and result.inputs.channel_ratio,
            _inputs(lambda i: short(i.channel_ratio)),
            ": largest E[a²] of an input, over the median",
        ),
        Question(
            "percdamp",
            "inputs.damping",
            lambda result: result.inputs and result.inputs.damping,
            _inputs(lambda i: short(i.damping)),
            ": least damping for a float32 Cholesky of M",
        ),
    )
    rankings: ClassVar[Rankings] = {
        "outliers": _by_outliers,
        "channels": _by_inputs("channel_ratio"),
        "percdamp": _by_inputs("damping"),
        "stock-bias": _by_inputs("stock_bias"),
    }

    def needs(self, settings: Settings, checkpoint: Checkpoint) -> Needs:
        """μ and M."""
        return Needs((InputMomentsRecipe(keep_rows=True),))

    def begin(self, layers: Sequence[LayerData]) -> Callable[[LayerData], QuantisationResult]:
        """Small weights of one shape together."""
        if not layers:
            return self.run
        ranges = in_batches([layer.row for layer in layers], layers[0].tensors, layers[0].shapes, stacked_ranges)
        return lambda layer: self._with_inputs(layer, *next(ranges))

    def run(self, layer: LayerData) -> QuantisationResult:
        """The result for the main weight and the layer's input features."""
        stored, transposed = layer.weight()
        return self._with_inputs(layer, *stacked_ranges([stored], layer.row.groups, transposed)[0])

    def _with_inputs(self, layer: LayerData, found: WeightRange | None, note: str | None) -> QuantisationResult:
        if layer.whole is None:
            return QuantisationResult(found, None, note)
        blocks = None
        if found is not None:
            stored, transposed = layer.weight()
            blocks = weight_blocks(stored.detach(), layer.row.groups, transposed)
        try:
            return QuantisationResult(found, input_moments(layer, blocks), note)
        except NumericalError as reason:  # what is known of the weight stays
            return QuantisationResult(found, None, str(reason))

    def on_data(self, result: QuantisationResult) -> bool:
        """Whether the inputs are known."""
        return result.inputs is not None

    def notes(self, results: Mapping[str, QuantisationResult]) -> Iterator[str]:
        """What is missing, and of which layers."""
        for reason in dict.fromkeys(result.note for result in results.values() if result.note):
            yield f"quantisation of {named([n for n, one in results.items() if one.note == reason])}: {reason}"

    def estimate(self, plan: AnalysisPlan) -> Iterator[BlockEstimate]:
        """M of every layer with the copies of it that are factorised, one layer after another."""
        for row in plan.rows if plan.data_pass is not None else ():
            if row.block is not None and row.kind != "Embedding":
                layer = row.block.layer
                size, work = layer.in_features, FACTORISATIONS * layer.groups * layer.in_features**3 / 3
                yield BlockEstimate(row.name, "factors of M", size, size, 1, 32 * layer.groups * size**2, work)

    def figures(self, analysis: Analysis, checkpoint: Checkpoint | None) -> Iterator[Figure]:
        """Bars of the three ratios of every layer."""
        known = {layer.name: layer.quantisation for layer in analysis.layers if layer.quantisation is not None}
        ratios = {
            name: (
                result.weight and result.weight.row_ratio,
                result.weight and result.weight.column_ratio,
                result.inputs and result.inputs.channel_ratio,
            )
            for name, result in known.items()
        }
        names = list(known)
        shown = [names[place] for place in worst_places(list(ratios.values()), MOST_DRAWN)]
        labels = ("rows of the weight", "columns of the weight", "inputs, E[a²]")
        series = {label: [ratios[name][place] for name in shown] for place, label in enumerate(labels)}
        drawn = {label: values for label, values in series.items() if any(value is not None for value in values)}
        if drawn:
            bars = tuple(Bars(label, tuple(values), style=place) for place, (label, values) in enumerate(drawn.items()))
            title = f"Outliers: largest over median{worst_of(len(shown), len(known), 'layers')}"
            across, up = Axis(ticks=tuple(enumerate(shown))), Axis("largest over median", "log")
            size = (max(7.0, 0.5 * len(shown) + 3), 4.5)
            yield Figure("outliers", (Panel(title, across, up, bars=bars),), size=size, legend="last")
