"""The analysis `fop`: eigenvalues and norm of FOP's learned matrices P, their weights by distance in the kernel,
∠(g, Pg) (FOP, sections 5, A.1)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from curvlab.analyses.definition import ModelAnalysis
from curvlab.analyses.estimate import BlockEstimate
from curvlab.analyses.fop_figures import fop_figures
from curvlab.analyses.fop_structure import GradientAngle, KernelStructure, angle, kernel_structure
from curvlab.analyses.layer_data import ModelData
from curvlab.analyses.layer_rows import LayerRow
from curvlab.analyses.mean_gradient import MeanGradient
from curvlab.analyses.needs import Needs
from curvlab.analyses.registry import register
from curvlab.analyses.spectrum_text import spectrum_text
from curvlab.document.figure import Figure
from curvlab.document.numbers import ABSENT, count, shape, short
from curvlab.document.table import Quantity
from curvlab.errors import CurvlabError, NumericalError
from curvlab.formats.curvlab_file.fop_matrices import FopMatrices
from curvlab.linalg.float64 import double
from curvlab.operators.eigenvalues import eigenvalues
from curvlab.operators.operator import Diagonal
from curvlab.operators.spectrum import spectrum
from curvlab.operators.summary import Spectrum

if TYPE_CHECKING:
    from curvlab.analyses.analysis_plan import AnalysisPlan
    from curvlab.analyses.results import Analysis
    from curvlab.analyses.settings import Settings
    from curvlab.formats.checkpoint import Checkpoint


@dataclass(frozen=True)
class FopResult:
    """FOP's learned matrix of one parameter: P = c·MMᵀ ("full") or c·(I + MMᵀ) ("low-rank"), M `[size, rank]`.

    `name` is the layer's, `kernel` the sizes of the kernel whose positions P is over (None for inputs of a linear
    layer), `norm` ‖P‖_F. c is 1, or √size/‖MMᵀ‖ resp. √size/‖I + MMᵀ‖ where `normalized`.
    """

    name: str
    parameter: str
    form: str
    size: int
    rank: int
    normalized: bool
    kernel: tuple[int, ...] | None
    spectrum: Spectrum | None = None
    norm: float | None = None
    structure: KernelStructure | None = None
    angle: GradientAngle | None = None
    note: str | None = None


def fop_results(
    fop: FopMatrices,
    rows: Sequence[LayerRow],
    shapes: Mapping[str, tuple[int, ...]],
    gradient: MeanGradient | None,
    memory: int | None,
) -> tuple[FopResult, ...]:
    """One result per learned matrix, in the order of the rows of the report.

    Args:
        fop: of the file.
        rows: rows of the report; matrices of parameters that are in none are left out.
        shapes: of the parameters.
        gradient: g of every parameter with a matrix; None without data.
        memory: bytes that the eigenvalues of one matrix may take; None for no limit.
    """
    first = {parameter: row.name for row in reversed(rows) for parameter in row.tensors}
    order = dict.fromkeys(parameter for row in rows for parameter in row.tensors)
    return tuple(
        fop_result(fop, parameter, first[parameter], shapes[parameter], gradient, memory)
        for parameter in order
        if parameter in fop.factors
    )


def fop_result(
    fop: FopMatrices,
    parameter: str,
    name: str,
    shape: tuple[int, ...],
    gradient: MeanGradient | None = None,
    memory: int | None = None,
) -> FopResult:
    """The result for one matrix; arguments as in `fop_results`, `name` and `shape` of the parameter's layer and of
    itself."""
    m = fop.factors[parameter]
    result = FopResult(
        name=name,
        parameter=parameter,
        form=fop.forms[parameter],
        size=m.shape[0],
        rank=m.shape[1],
        normalized=fop.normalized[parameter],
        kernel=shape[2:] or None,
    )
    wrong = int((~m.isfinite()).sum())
    if wrong:
        return replace(result, note=f"{wrong} of {m.numel()} entries of M are not finite")
    form, m = fop.form(parameter), double(m)
    operator = form.operator(m)
    result = replace(result, structure=kernel_structure(operator, result.kernel or ()))
    needed = 16 * min(m.shape) ** 2
    if memory is not None and needed > memory:
        result = replace(result, note=f"no eigenvalues: they need {needed} bytes, and {memory} are allowed")
    else:
        try:
            values = eigenvalues(operator)
            norm = values.norm().item()
            result = replace(result, spectrum=spectrum(Diagonal(values)), norm=norm if math.isfinite(norm) else None)
        except NumericalError as reason:
            result = replace(result, note=str(reason))
    if gradient is None or parameter not in gradient.means:
        return result
    g = gradient.means[parameter]
    turned = angle(g, form.apply(m, g))
    if turned is not None and m.shape[0] == 1:
        turned = 0.0  # a learned rate turns nothing, whatever rounding says
    return replace(result, angle=GradientAngle(turned, gradient.targets, gradient.examples))


def _form(matrix: FopResult) -> str:
    text = "full" if matrix.form == "full" else f"rank {matrix.rank}"
    return f"{text} norm" if matrix.normalized else text


def _neighbours(matrix: FopResult) -> str:
    found = () if matrix.structure is None else matrix.structure.neighbours
    return " · ".join(f"{value:+.3f}" for value in found if value is not None) or ABSENT


def _negative(matrix: FopResult) -> str:
    share = None if matrix.structure is None else matrix.structure.negative
    return ABSENT if share is None else f"{100 * share:.0f}%"


def _angle(matrix: FopResult) -> str:
    degrees = None if matrix.angle is None else matrix.angle.degrees
    return ABSENT if degrees is None else f"{short(degrees)}°"


@register
class Fop(ModelAnalysis):
    """What the optimizer FOP has learned beside the weights."""

    name = "fop"
    help = "the matrices that FOP has learned: eigenvalues, weights by distance, and how far they turn the gradient"
    result = FopResult
    data = "used"
    by_default = True
    title = "FOP's learned matrices"
    quantities = (
        Quantity("P", _form, ": MMᵀ (full) or I + MMᵀ (rank), scaled like I (norm)", "left"),
        Quantity("size", lambda f: shape(f.kernel) if f.kernel else str(f.size), ": kernel, or inputs"),
        Quantity("λ max", lambda f: short(f.spectrum and f.spectrum.max), ", λ min: eigenvalues of P, 1 at the start"),
        Quantity("λ min", lambda f: short(f.spectrum and f.spectrum.min)),
        Quantity("κ(P)", lambda f: spectrum_text(f.spectrum), " = λmax/λmin"),
        Quantity("‖P‖", lambda f: short(f.norm), ": Frobenius norm"),
        Quantity("diagonal", lambda f: short(f.structure and f.structure.diagonal), ": its mean"),
        Quantity("neighbours", _neighbours, ": mean weight to the next position along each axis of the kernel"),
        Quantity("negative", _negative, ": share of neighbouring pairs below 0, all where P whitens"),
        Quantity("angle", _angle, ": by how much P turns the mean gradient"),
    )
    reads = ("loss",)
    csv_omits = frozenset({"kernel"})

    def missing(self, checkpoint: Checkpoint) -> CurvlabError | None:
        """A model that FOP did not train has no matrices."""
        if checkpoint.fop is not None:
            return None
        what, why = "'fop' needs the matrices that FOP has learned", "the model holds none"
        return CurvlabError(what, why, "give a file that 'curvlab train --optimizer fop' wrote")

    def needs(self, settings: Settings, checkpoint: Checkpoint) -> Needs:
        """The mean gradient of every parameter with a matrix."""
        return Needs(mean_gradient=frozenset(checkpoint.fop.factors if checkpoint.fop else ()))

    def run(self, model: ModelData) -> tuple[FopResult, ...]:
        """One row per matrix."""
        assert model.checkpoint.fop is not None
        memory = model.settings.max_memory
        return fop_results(model.checkpoint.fop, model.rows, model.shapes, model.gradient, memory)

    def estimate(self, plan: AnalysisPlan) -> Iterator[BlockEstimate]:
        """M `[d, k]`, MᵀM and its eigenvalues, held one at a time; without those that the budget leaves out."""
        fop, budget = plan.checkpoint.fop, plan.settings.max_memory
        assert fop is not None
        for parameter in dict.fromkeys(name for row in plan.rows for name in row.tensors if name in fop.factors):
            d, k = fop.factors[parameter].shape
            gram = 16 * k**2
            if budget is None or gram <= budget:
                yield BlockEstimate(parameter, "FOP's matrix", d, k, 1, gram + 8 * d * k, float(d * k**2 + k**3))

    def remarks(self, rows: Sequence[Any]) -> Iterator[str]:
        """What is missing of a matrix, and which gradient the angles are of."""
        for one in rows:
            if one.note:
                yield f"FOP's matrix of {one.parameter}: {one.note}"
        angle = next((one.angle for one in rows if one.angle is not None), None)
        if angle is not None:
            whose = "the data's own targets" if angle.targets == "data" else "targets drawn from the network"
            yield f"angles are of the mean gradient of {count(angle.examples)} examples at {whose}"

    def figures(self, analysis: Analysis, checkpoint: Checkpoint | None) -> Iterator[Figure]:
        """The matrices, their eigenvalues and, over the snapshots of a training run, their entries."""
        if analysis.fop and checkpoint is not None:
            yield from fop_figures(analysis.fop, checkpoint)
