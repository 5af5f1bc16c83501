"""analyze: a model and data in, a frozen `Analysis` out. One pass over the data, then one layer after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import repeat
from math import prod
from typing import Any

import torch

from curvlab.analyses.coverage import coverage_of
from curvlab.analyses.entries import Entry, tensors_of
from curvlab.analyses.environment import environment
from curvlab.analyses.estimate import Estimate, estimate_blocks, estimate_fop, estimate_weights, gibibytes
from curvlab.analyses.fop import fop_results
from curvlab.analyses.job import Job, Model, Pass, prepare
from curvlab.analyses.kfac import kfac_result
from curvlab.analyses.mean_gradient import Batch
from curvlab.analyses.moments import moments_result
from curvlab.analyses.results import Analysis, FopResult, LayerResult, WeightsResult
from curvlab.analyses.settings import Settings
from curvlab.analyses.source import moved
from curvlab.analyses.tensor_normal import tensor_normal_result
from curvlab.analyses.weight_profiles import weight_profiles
from curvlab.errors import NumericalError
from curvlab.operators.summary import QUANTILE_LEVELS
from curvlab.statistics.collect import collect
from curvlab.statistics.plan import Collected

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
    and what FOP has learned, where the file holds it.

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
    job = prepare(checkpoint, data, settings, options)
    parts = _collect(job, job.data_pass, progress) if job.data_pass else ()
    layers = _layers(job, parts, progress)
    return Analysis(
        command=tuple(command),
        seed=job.settings.seed,
        environment=environment(job.device),
        model=_model_facts(job),
        data=job.data_pass.source.info if job.data_pass else None,
        settings=_settings_facts(job),
        coverage=coverage_of(job.entries, layers, job.left_out, _shapes(job)),
        layers=tuple(layers),
        fop=_fop(job),
        notes=(*job.notes, *_too_few(layers)),
    )


def estimate(checkpoint: Model, data: Any = None, *, settings: Settings | None = None, **options: Any) -> Estimate:
    """What `analyze` with the same arguments would hold and do, block by block; only two examples are run forward."""
    job = prepare(checkpoint, data, settings, options)
    learned = job.checkpoint.fop if job.wants("fop") else None
    fop = estimate_fop(learned, job.entries, job.settings.max_memory) if learned else []
    if job.data_pass is None:
        blocks = estimate_weights(job.entries, _shapes(job)) if job.wants("weights") else []
        memory, notes = 0, job.notes
        in_turn = [*blocks, *fop]
    else:
        blocks = estimate_blocks(job.data_pass.found, job.data_pass.plan, job.data_pass.source.samples or 0)
        memory = sum(b.memory for b in blocks) + job.data_pass.activations * job.data_pass.batch_size
        notes = [*job.notes, *(f"{name}: {why}" for name, why in job.left_out.items())]
        in_turn = fop
    memory += max((b.memory for b in in_turn), default=0)  # one after another
    return Estimate((*blocks, *fop), memory, sum(b.work for b in (*blocks, *fop)), tuple(notes))


def _collect(job: Job, run: Pass, progress: Progress) -> tuple[Collected, ...]:
    dtype = next(run.module.parameters()).dtype
    batches: Iterator[Batch] = (moved(batch, job.device, dtype) for batch in run.source.batches(run.batch_size))
    generator = torch.Generator().manual_seed(job.settings.seed)
    total = run.source.samples

    def tell(seen: int) -> None:
        progress("statistics", seen, total)

    tell(0)
    if job.gradient is not None:
        batches = job.gradient.watching(batches)
    parts, refused = collect(run.module, run.found, batches, run.likelihood, run.plan, generator, tell)
    job.left_out.update({name: why for name, why in refused.items() if name not in run.found.refused})
    run.source.info["samples"] = sum(part.examples for part in parts)
    return parts


def _layers(job: Job, parts: tuple[Collected, ...], progress: Progress) -> list[LayerResult]:
    whole = parts[0].merge(parts[1]) if len(parts) == 2 else parts[0] if parts else None
    halves = parts if len(parts) == 2 and all(part.examples for part in parts) else ()
    stage, count, shapes = ("spectra" if parts else "weights"), len(job.entries), _shapes(job)
    profiles: Iterator[WeightsResult | None] = repeat(None)
    if job.wants("weights"):
        profiles = weight_profiles(job.entries, tensors_of(job.checkpoint, job.checkpoint.module), shapes)
    layers = []
    for done, entry in enumerate(job.entries):
        progress(stage, done, count)
        layers.append(_on_data(job, entry, _layer(entry, shapes, next(profiles)), whole, halves))
    progress(stage, count, count)
    return layers


def _layer(entry: Entry, shapes: Mapping[str, tuple[int, ...]], weights: WeightsResult | None) -> LayerResult:
    return LayerResult(
        name=entry.name,
        kind=entry.kind,
        shape=shapes[entry.weight],
        parameters=sum(prod(shapes[name]) for name in entry.tensors),
        confidence=entry.confidence,
        evidence=entry.evidence,
        weights=weights,
    )


def _on_data(
    job: Job, entry: Entry, result: LayerResult, whole: Collected | None, halves: Sequence[Collected]
) -> LayerResult:
    block = entry.block
    if block is None or whole is None or job.data_pass is None:
        return result
    plan, name = job.data_pass.plan, block.name
    try:
        if job.wants("moments") and name in whole.features:
            parts = tuple(half.features[name] for half in halves if name in half.features)
            result = replace(result, moments=moments_result(block.layer, whole.features[name], parts))
        if job.wants("kfac"):
            result = replace(result, kfac=kfac_result(block, plan, whole, halves))
        if job.wants("tnt"):
            result = replace(result, tnt=tensor_normal_result(entry.weight, whole, halves))
    except NumericalError as reason:  # one layer's NaN must not hide the others, nor its own weights' count of them
        job.left_out[entry.name] = str(reason)
    backward = plan.backward and name not in job.left_out
    if backward and ((job.wants("kfac") and result.kfac is None) or (job.wants("tnt") and result.tnt is None)):
        job.left_out[entry.name] = "no gradient reached it: the output does not depend on it, or is detached from it"
    return result


def _fop(job: Job) -> tuple[FopResult, ...]:
    if job.checkpoint.fop is None or not job.wants("fop"):
        return ()
    return fop_results(job.checkpoint.fop, job.entries, _shapes(job), job.gradient, job.settings.max_memory)


def _too_few(layers: Sequence[LayerResult]) -> list[str]:
    """A sentence on the layers whose features outnumber the rows that were seen, if there are any."""
    few = [layer.name for layer in layers if layer.moments is not None and layer.moments.note]
    if not few:
        return []
    named = ", ".join(few[:6]) + (f" and {len(few) - 6} more" if len(few) > 6 else "")
    return [
        f"fewer rows than features in {named}: rank, dead and singular factors there say as much of the data's size"
    ]


def _shapes(job: Job) -> Mapping[str, tuple[int, ...]]:
    module = job.checkpoint.module
    if module is None:
        return job.checkpoint.shapes
    return {name: tuple(p.shape) for name, p in module.named_parameters()}


def _model_facts(job: Job) -> dict[str, Any]:
    checkpoint, shapes = job.checkpoint, _shapes(job)
    counted = list(shapes) if checkpoint.module is not None else [n for e in job.entries for n in e.tensors]
    return {
        "path": None if checkpoint.path is None else str(checkpoint.path),
        "format": checkpoint.format,
        "sha256": checkpoint.sha256,
        "parameters": sum(torch.Size(shapes[name]).numel() for name in counted),
        "runnable": checkpoint.module is not None,
        "architecture": checkpoint.architecture,
    }


def _settings_facts(job: Job) -> dict[str, Any]:
    facts = job.settings.to_dict()
    if job.data_pass is not None:
        facts["likelihood"] = job.data_pass.likelihood.name
        facts["batch_size"] = job.data_pass.batch_size
        facts["products"] = "float64"
    if job.settings.max_memory is not None:
        facts["max_memory"] = gibibytes(job.settings.max_memory)
    facts["quantile_levels"] = list(QUANTILE_LEVELS)
    return facts
