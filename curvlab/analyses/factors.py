"""The analysis `factors`: what a factor file holds of every layer, kept for `save_factors` (docs/factors.md)."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable, Mapping
from dataclasses import InitVar, dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from curvlab.analyses.definition import LayerAnalysis
from curvlab.analyses.layer_data import LayerData, LayerStatistics
from curvlab.analyses.needs import Needs
from curvlab.analyses.registry import register
from curvlab.analyses.results import Analysis
from curvlab.curvatures.fisher_diagonal import FisherDiagonal
from curvlab.curvatures.input_moments import InputMoments
from curvlab.curvatures.kronecker_factors import recipes
from curvlab.document.json import plain
from curvlab.document.numbers import ABSENT, size
from curvlab.document.table import Quantity
from curvlab.errors import CurvlabError, NumericalError
from curvlab.factor_files.eigenbases import eigenbases
from curvlab.factor_files.file import write_factors
from curvlab.factor_files.layer_factors import Factors, LayerFactors, Origin
from curvlab.factor_files.layer_shape import shape_of
from curvlab.factor_files.statistics import DIAGONAL, FISHER_DIAGONAL, NAMES, ROWS, SECOND_MOMENT, stored
from curvlab.quoting import quoted

if TYPE_CHECKING:
    from curvlab.analyses.settings import Settings
    from curvlab.formats.checkpoint import Checkpoint


@dataclass(frozen=True)
class FactorsResult:
    """What is kept of one layer: "matrix", "diagonal" (the rest is zero) or "rows" (fewer than columns).

    `bytes` is what it takes in a file; `fisher_diagonal` counts the parameters that have one.
    """

    count: int
    second_moment: str | None
    gradient_factor: str | None
    fisher_diagonal: int
    bytes: int
    kept: InitVar[LayerFactors | None] = None

    def __post_init__(self, kept: LayerFactors | None) -> None:
        object.__setattr__(self, "_kept", kept)  # tensors are no part of what is printed

    def factors(self) -> LayerFactors:
        """The tensors themselves."""
        kept: LayerFactors | None = self.__dict__["_kept"]
        assert kept is not None
        return kept


def _form(tensors: Mapping[str, Tensor], name: str) -> str | None:
    forms = {"": "matrix", DIAGONAL: "diagonal", ROWS: "rows"}
    return next((word for suffix, word in forms.items() if name + suffix in tensors), None)


def _shown(field: str) -> Callable[[FactorsResult], str]:
    return lambda result: getattr(result, field) or ABSENT


@register
class FactorsAnalysis(LayerAnalysis):
    """Moments, K-FAC factors and the Fisher's diagonal of every layer, as tensors."""

    name = "factors"
    help = "what --factors writes: moments, K-FAC factors and the Fisher's diagonal of every layer, as tensors"
    result = FactorsResult
    title = "Factors kept"
    quantities = (
        Quantity("M as", _shown("second_moment"), ": a matrix, its diagonal, or fewer rows than columns"),
        Quantity("G as", _shown("gradient_factor"), ": likewise"),
        Quantity("bytes", lambda result: size(result.bytes), " in a file"),
    )
    reads = ("loss", "fisher_type", "mc_samples", "kfac_approx")
    asked_by: ClassVar[str | None] = "factors"

    def needs(self, settings: Settings, checkpoint: Checkpoint) -> Needs:
        """Moments, both factors, and squared gradients where there are any gradients."""
        kept = {one.name: one for one in (InputMoments(keep_rows=True), *recipes(settings.kfac_approx))}
        if settings.fisher_type != "forward-only":
            kept[FisherDiagonal.name] = FisherDiagonal()
        return Needs(tuple(kept.values()))

    def run(self, layer: LayerData) -> FactorsResult | None:
        """What was averaged of the layer; None where nothing was."""
        block = layer.row.block
        if layer.whole is None or block is None:
            return None
        tensors = _tensors(layer.whole, {name: role for role, name in block.parameters.items()})
        if not tensors:
            return None
        if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
            raise NumericalError(f"the factors of {quoted(layer.row.name)} are not finite", "they are left out")
        settings, shape = layer.settings, shape_of(layer.row.name, layer.layer, block.parameters)
        origin = Origin(
            examples=layer.whole.examples,
            fisher_type=settings.fisher_type,
            mc_samples=settings.mc_samples,
            kfac_approx=settings.kfac_approx,
            likelihood=None,
            seed=settings.seed,
            sha256=None,
            data={},
            version=importlib.metadata.version("curvlab"),
        )
        kept = LayerFactors(shape, origin, layer.whole.rows, tensors)
        if settings.eigenbases:
            kept = replace(kept, tensors=tensors | eigenbases(kept))
        return FactorsResult(
            count=kept.count,
            second_moment=_form(tensors, SECOND_MOMENT),
            gradient_factor=_form(tensors, "gradient_factor"),
            fisher_diagonal=sum(name.startswith(FISHER_DIAGONAL) for name in tensors),
            bytes=sum(tensor.numel() * tensor.element_size() for tensor in kept.tensors.values()),
            kept=kept,
        )

    def finish(self, analysis: Analysis, settings: Settings) -> None:
        """Write the file that `--factors` names."""
        if settings.factors is not None:
            save_factors(analysis, settings.factors)


def _tensors(whole: LayerStatistics, roles: Mapping[str, str]) -> dict[str, Tensor]:
    """The averages of a layer by their names in a file; `roles` are those of its parameters."""
    found: dict[str, Tensor] = {}
    for recipe in NAMES:
        average = whole.average(recipe)
        if average is not None:
            found |= stored(recipe, average.state)
    for average in whole.averages.get(FisherDiagonal.name, ()):
        role = roles[average.block.name]
        found[f"{FISHER_DIAGONAL}.{role}"] = average.state["squares"]
    return found


def factors_of(analysis: Analysis) -> Factors:
    """The factors that an analysis has kept.

    Raises:
        CurvlabError: it has not kept any.
    """
    kept = {layer.name: layer.results["factors"].factors() for layer in analysis.layers if "factors" in layer.results}
    if not kept:
        raise CurvlabError(
            "the analysis has kept no factors", "it was not asked for any, or no layer has any", 'add "factors" to it'
        )
    origin = replace(
        next(iter(kept.values())).origin,
        likelihood=analysis.settings.get("likelihood"),
        sha256=analysis.model.get("sha256"),
        data=plain(analysis.data or {}),  # a loss that is no number is null
    )
    return Factors({name: replace(one, origin=origin) for name, one in kept.items()}, origin)


def save_factors(given: Analysis | Factors, path: str | os.PathLike[str]) -> None:
    """Write the factors of an analysis that was done with "factors" among its `analyses`, or factors that were loaded.

    Raises:
        CurvlabError: the analysis has kept none, or the file cannot be written.
    """
    write_factors(factors_of(given) if isinstance(given, Analysis) else given, path)
