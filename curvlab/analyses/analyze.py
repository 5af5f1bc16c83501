"""analyze: a model and data in, a frozen `Analysis` out. One pass over the data, then one layer after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

from curvlab.analyses.analysis_plan import AnalysisPlan, prepare
from curvlab.analyses.averages import Averages
from curvlab.analyses.coverage import coverage_of
from curvlab.analyses.data_pass import collected
from curvlab.analyses.data_score import chance_notes
from curvlab.analyses.definition import LayerAnalysis, ModelAnalysis
from curvlab.analyses.environment import environment
from curvlab.analyses.estimate import Estimate, estimate_of
from curvlab.analyses.last_read import LastRead
from curvlab.analyses.layer_data import LayerData, ModelData
from curvlab.analyses.layer_rows import LayerRow, tensors_of
from curvlab.analyses.loaded import Model
from curvlab.analyses.results import Analysis, LayerResult
from curvlab.analyses.settings import Settings
from curvlab.document.numbers import size
from curvlab.errors import NumericalError
from curvlab.operators.summary import QUANTILE_LEVELS

Progress = Callable[[str, int, int | None], None]
"""`progress(stage, done, total)`: "statistics" counts examples, "spectra" and "weights" count layers."""


def analyze(
    checkpoint: Model,
    data: Any = None,
    *,
    settings: Settings | None = None,
    progress: Progress = lambda stage, done, total: None,
    command: Sequence[str] = (),
    **options: Any,
) -> Analysis:
    """Profile a model: its weights, and on data its feature moments, K-FAC and tensor-normal factors, layer by layer;
    and what FOP has learned, where the file holds it. `curvlab list analyses` names all there is.

    The products of features and of gradients are summed in float64, whatever `dtype` the network runs in.

    Args:
        checkpoint: a loaded checkpoint, a network, or a path to load.
        data: a dataset's name or path, (x, y) tensors, a tensor, or a loader; None takes what the file recorded, if
            anything.
        settings: how; or give its fields as keyword arguments (`loss="cross-entropy"`, `fisher_type="mc"`, `seed=0`).
        progress: told how far the work is.
        command: recorded in the result.

    Raises:
        CurvlabError: an analysis was asked for that the inputs do not allow, or the data does not fit the model.
    """
    plan = prepare(checkpoint, data, settings, options)
    layers = _layers(plan, progress)
    gradient = plan.data_pass.gradient if plan.data_pass else None
    model = ModelData(plan.checkpoint, plan.rows, plan.shapes, plan.settings, gradient)
    analysis = Analysis(
        command=tuple(command),
        seed=plan.settings.seed,
        environment=environment(plan.device),
        model=_model_facts(plan),
        data=_data_facts(plan),
        settings=_settings_facts(plan),
        coverage=coverage_of(plan, layers),
        layers=tuple(layers),
        notes=(*chance_notes(plan.data_pass.source.info if plan.data_pass else {}), *plan.notes, *_notes(plan, layers)),
        results={one.name: one.run(model) for one in plan.chosen if isinstance(one, ModelAnalysis)},
    )
    for one in plan.chosen:
        one.finish(analysis, plan.settings)
    return analysis


def estimate(checkpoint: Model, data: Any = None, *, settings: Settings | None = None, **options: Any) -> Estimate:
    """What `analyze` with the same arguments would hold and do, block by block; only two examples are run."""
    return estimate_of(prepare(checkpoint, data, settings, options, precise=True))


class _Passes:
    """The statistics of one layer after another; a pass over the data is made when the first of its layers is due."""

    def __init__(self, plan: AnalysisPlan, progress: Progress) -> None:
        self.plan, self.progress = plan, progress
        self.made: dict[int, Averages] = {}

    def first(self) -> None:
        """Make the first pass, which is about the whole model as well."""
        if self.plan.data_pass is not None:
            self._pass(0)

    def given(self, data: LayerData) -> LayerData:
        """What an analysis is given of a row, with the statistics of a layer that ran."""
        run, stored, block = self.plan.data_pass, self.plan.stored, data.row.block
        if block is None or (run is None and stored is None):
            return data
        if stored is not None:
            return replace(data, whole=stored.layer(block.name))
        assert run is not None
        whole, *halves = self._pass(run.plan.pass_of(block.name) or 0).layer(block.name)
        return replace(data, whole=whole, halves=tuple(halves))

    def done(self, row: LayerRow) -> None:
        """Let go of the statistics of a row's layer."""
        if row.block is not None:
            for averages in self.made.values():
                averages.release(row.block.name)

    def _pass(self, number: int) -> Averages:
        if number not in self.made:
            run = self.plan.data_pass
            assert run is not None
            total = run.source.samples

            def tell(seen: int) -> None:
                self.progress("statistics", seen, total)

            tell(0)
            self.made[number], refused = collected(run, number, self.plan.device, tell)
            self.plan.left_out.update(refused)
        return self.made[number]


def _layers(plan: AnalysisPlan, progress: Progress) -> list[LayerResult]:
    tensors = tensors_of(plan.checkpoint, plan.checkpoint.module)
    stacked = {row.weight for row in plan.rows if row.part is not None}
    if stacked:
        tensors = LastRead(tensors, stacked)
    on_data = plan.data_pass is not None or plan.stored is not None
    stage, count = ("spectra" if on_data else "weights"), len(plan.rows)
    rows = [LayerData(row, tensors, plan.shapes, plan.settings) for row in plan.rows]
    passes = _Passes(plan, progress)
    passes.first()
    chosen = {one: one.begin(rows) for one in plan.chosen if isinstance(one, LayerAnalysis)}
    layers = []
    for done, data in enumerate(rows):
        progress(stage, done, count)
        layers.append(_layer(plan, passes.given(data), chosen))
        passes.done(data.row)
    progress(stage, count, count)
    return layers


def _layer(
    plan: AnalysisPlan, data: LayerData, chosen: Mapping[LayerAnalysis, Callable[[LayerData], Any]]
) -> LayerResult:
    row, results = data.row, dict[str, Any]()
    for one, run in chosen.items():
        if one.data == "needed" and data.whole is None:
            continue
        try:
            results[one.name] = run(data)
        except NumericalError as error:  # one layer's NaN must not hide the others, nor the other analyses of its own
            plan.left_out.setdefault(row.name, str(error))
            continue
        if results[one.name] is None and (reason := _why_none(plan, one, data)):
            plan.left_out.setdefault(row.name, reason)
    return LayerResult(
        name=row.name,
        kind=row.kind,
        shape=row.shape(plan.shapes),
        parameters=row.count(plan.shapes),
        confidence=row.confidence,
        evidence=row.evidence,
        results={name: result for name, result in results.items() if result is not None},
    )


def _why_none(plan: AnalysisPlan, one: LayerAnalysis, data: LayerData) -> str | None:
    """Why an analysis of gradients has no result for a layer; None where it has none of any layer."""
    if plan.data_pass is None or not plan.data_pass.backward:
        return None
    for curvature in plan.needs(one).curvatures:
        if curvature.of_inputs or data.whole is None or data.whole.average(curvature.name) is not None:
            continue
        if data.whole.rows == 0:
            return "no row of the data was given to it"
        if not plan.data_pass.plan.has_block(curvature.name, data.row.name):
            return f"{one.name} has no block of it"
        return "no gradient reached it: the output does not depend on it, or is detached from it"
    return None


def _notes(plan: AnalysisPlan, layers: Sequence[LayerResult]) -> list[str]:
    notes: list[str] = []
    for one in plan.chosen:
        if isinstance(one, LayerAnalysis):
            notes += one.notes({layer.name: layer.results[one.name] for layer in layers if one.name in layer.results})
    return notes


def _model_facts(plan: AnalysisPlan) -> dict[str, Any]:
    checkpoint, shapes = plan.checkpoint, plan.shapes
    counted = sum(map(prod, shapes.values()))
    if checkpoint.module is None:
        counted = sum(row.count(shapes) for row in plan.rows)
    return {
        "path": None if checkpoint.path is None else str(checkpoint.path),
        "format": checkpoint.format,
        "sha256": checkpoint.sha256,
        "parameters": counted,
        "runnable": checkpoint.module is not None,
        "architecture": checkpoint.architecture,
    }


def _data_facts(plan: AnalysisPlan) -> Mapping[str, Any] | None:
    if plan.stored is not None:
        return plan.stored.factors.origin.data
    return plan.data_pass.source.info if plan.data_pass else None


def _settings_facts(plan: AnalysisPlan) -> dict[str, Any]:
    facts = plan.settings.to_dict()
    if plan.data_pass is not None:
        facts["likelihood"] = plan.data_pass.likelihood.name
        facts["batch_size"] = plan.data_pass.plan.batch.size
        facts["products"] = "float64"
    if plan.stored is not None:
        facts["likelihood"] = plan.stored.factors.origin.likelihood
    if plan.settings.max_memory is not None:
        facts["max_memory"] = size(plan.settings.max_memory)
    facts["quantile_levels"] = list(QUANTILE_LEVELS)
    return facts
