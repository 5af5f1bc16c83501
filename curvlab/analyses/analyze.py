"""analyze: a model and data in, a frozen `Analysis` out. One pass over the data, then one layer after another."""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from curvlab.analyses.coverage import coverage_of
from curvlab.analyses.entries import Entry, entries_of_file, entries_of_module, tensors_of
from curvlab.analyses.environment import environment, pick_device
from curvlab.analyses.estimate import Estimate, estimate_blocks, gibibytes, leave_out
from curvlab.analyses.kfac import kfac_result
from curvlab.analyses.likelihood_choice import choose_likelihood
from curvlab.analyses.moments import moments_result
from curvlab.analyses.results import QUANTILE_LEVELS, Analysis, LayerResult
from curvlab.analyses.settings import Settings
from curvlab.analyses.source import Source, moved, open_source
from curvlab.analyses.tensor_normal import tensor_normal_result
from curvlab.analyses.weights import weight_statistics
from curvlab.capture.survey import Survey, survey
from curvlab.capture.tape import batch_size, call_model
from curvlab.checkpoints.checkpoint import Checkpoint
from curvlab.checkpoints.load import load
from curvlab.errors import CurvlabError
from curvlab.likelihoods import Likelihood
from curvlab.statistics.collect import collect, output_tensor
from curvlab.statistics.plan import Collected, Plan

Progress = Callable[[str, int, int | None], None]
"""`progress(stage, done, total)`: "statistics" counts examples, "spectra" and "weights" count layers."""

DATA_ANALYSES = ("moments", "kfac", "tnt")
BATCH_SIZE = 256


def analyze(
    checkpoint: Checkpoint | nn.Module | str | Path,
    data: Any = None,
    *,
    settings: Settings | None = None,
    progress: Progress = lambda stage, done, total: None,
    command: Sequence[str] = (),
    **options: Any,
) -> Analysis:
    """Profile a model: its weights, and on data its feature moments, K-FAC factors and tensor-normal factors, layer by layer.

    Args:
        checkpoint: a loaded checkpoint, a network, or a path to load.
        data: a dataset's name or path, (x, y) tensors, a tensor, or a loader; None takes what the file recorded, if anything.
        settings: how; or give its fields as keyword arguments (`loss="cross-entropy"`, `fisher_type="mc"`, `seed=0`, …).
        progress: told how far the work is.
        command: recorded in the result.

    Raises:
        CurvlabError: an analysis was asked for that the inputs do not allow, or the data does not fit the model.
    """
    job = _Job.start(checkpoint, data, settings, options)
    parts: tuple[Collected, ...] = ()
    if job.source is not None and job.found is not None and job.likelihood is not None:
        parts = _collect(job, progress)
    layers = _layers(job, parts, progress)
    blocks = coverage_of(job.entries, layers, job.left_out)
    return Analysis(
        command=tuple(command),
        seed=job.settings.seed,
        environment=environment(job.device),
        model=_model_facts(job),
        data=job.source.info if job.source else None,
        settings=_settings_facts(job),
        coverage=blocks,
        layers=tuple(layers),
        notes=tuple(job.notes),
    )


def estimate(
    checkpoint: Checkpoint | nn.Module | str | Path, data: Any = None, *, settings: Settings | None = None, **options: Any
) -> Estimate:
    """What `analyze` with the same arguments would hold and do, block by block; only a forward pass of two examples is run."""
    job = _Job.start(checkpoint, data, settings, options)
    if job.found is None or job.source is None:
        return Estimate((), 0, 0.0, tuple(job.notes))
    blocks = estimate_blocks(job.found, job.plan, job.source.samples or 0)
    memory = sum(b.memory for b in blocks) + job.activations * job.batch_size
    return Estimate(tuple(blocks), memory, sum(b.work for b in blocks), tuple(job.notes))


@dataclass
class _Job:
    """What is going to be done: everything decided before the pass over the data."""

    checkpoint: Checkpoint
    settings: Settings
    device: torch.device
    module: nn.Module | None
    source: Source | None
    found: Survey | None
    likelihood: Likelihood | None
    plan: Plan
    entries: list[Entry]
    left_out: dict[str, str]
    notes: list[str]
    batch_size: int = BATCH_SIZE
    activations: int = 0

    @classmethod
    def start(cls, given: Checkpoint | nn.Module | str | Path, data: Any, settings: Settings | None, options: Any) -> _Job:
        settings = replace(settings or Settings(), **options)
        checkpoint = as_checkpoint(given)
        device = pick_device(settings.device)
        notes = list(checkpoint.notes)
        module = checkpoint.module
        data = checkpoint.data if data is None else data
        _check_wanted(settings, module is not None, data is not None, checkpoint)
        if module is None or data is None:
            entries = entries_of_file(checkpoint) if module is None else entries_of_module(module, None)
            notes += _what_would_give_more(module is not None, data is not None)
            entries = [e for e in entries if _named(e, settings)]
            return cls(checkpoint, settings, device, module, None, None, None, Plan(), entries, {}, notes)
        dtype = torch.float64 if settings.dtype == "float64" else torch.float32
        module = copy.deepcopy(module).to(device, dtype).eval()
        source = open_source(data, module, samples=settings.samples, seed=settings.seed, max_memory=settings.max_memory)
        notes += source.notes
        first, _ = moved((source.first, None), device, dtype)
        z, activations = _try(module, first, source)
        chosen, guess = choose_likelihood(settings.loss, checkpoint.likelihood, z, source.targets)
        notes += [guess] if guess else []
        found = survey(module, first, settings.layers)
        plan, left_out = leave_out(found, _plan(settings, source), settings.max_memory)
        entries = [e for e in entries_of_module(module, found) if _named(e, settings)]
        job = cls(checkpoint, settings, device, module, source, found, chosen, plan, entries, left_out, notes)
        job.activations = activations
        job.batch_size = settings.batch_size or _batch_size(activations, settings.max_memory)
        return job

    def wants(self, analysis: str) -> bool:
        return self.settings.analyses is None or analysis in self.settings.analyses


def as_checkpoint(given: Checkpoint | nn.Module | str | Path) -> Checkpoint:
    """A checkpoint from a path, or from a network in memory."""
    if isinstance(given, Checkpoint):
        return given
    if isinstance(given, nn.Module):
        tensors = {name: p.detach() for name, p in given.state_dict().items()}
        shapes = {name: tuple(t.shape) for name, t in tensors.items()}
        return Checkpoint(None, "module", tensors, shapes, (), given, type(given).__qualname__)
    return load(given)


def _collect(job: _Job, progress: Progress) -> tuple[Collected, ...]:
    assert job.source is not None and job.found is not None and job.module is not None and job.likelihood is not None
    dtype = next(job.module.parameters()).dtype
    batches = (moved(batch, job.device, dtype) for batch in job.source.batches(job.batch_size))
    generator = torch.Generator().manual_seed(job.settings.seed)
    total = job.source.samples
    progress("statistics", 0, total)
    parts, refused = collect(
        job.module, job.found, batches, job.likelihood, job.plan, generator, lambda seen: progress("statistics", seen, total)
    )
    job.left_out.update({name: why for name, why in refused.items() if name not in job.found.refused})
    if job.source.info["samples"] is None:
        job.source.info["samples"] = sum(part.examples for part in parts)
    return parts


def _layers(job: _Job, parts: tuple[Collected, ...], progress: Progress) -> list[LayerResult]:
    whole = parts[0].merge(parts[1]) if len(parts) == 2 else parts[0] if parts else None
    halves = parts if len(parts) == 2 and all(part.examples for part in parts) else ()
    tensors = tensors_of(job.checkpoint, job.checkpoint.module)
    layers = []
    stage = "weights" if whole is None else "spectra"
    for done, entry in enumerate(job.entries):
        progress(stage, done, len(job.entries))
        layers.append(_layer(job, entry, tensors, whole, halves))
    progress(stage, len(job.entries), len(job.entries))
    return layers


def _layer(job: _Job, entry: Entry, tensors: Any, whole: Collected | None, halves: Sequence[Collected]) -> LayerResult:
    shapes = job.checkpoint.shapes
    weight = tensors[entry.weight] if job.wants("weights") and entry.weight in tensors else None
    shape = tuple(weight.shape) if weight is not None else tuple(shapes.get(entry.weight, ()))
    result = LayerResult(
        name=entry.name,
        kind=entry.kind,
        shape=shape,
        parameters=sum(_numel(shapes, tensors, name) for name in entry.tensors),
        confidence=entry.confidence,
        weights=None if weight is None else weight_statistics(weight, transposed=entry.transposed, groups=entry.groups),
    )
    block = entry.block
    if block is None or whole is None:
        return result
    name = block.name
    if job.wants("moments") and name in whole.features:
        parts = tuple(half.features[name] for half in halves if name in half.features)
        result = replace(result, moments=moments_result(block.layer, whole.features[name], parts))
    if job.wants("kfac"):
        result = replace(result, kfac=kfac_result(block, job.plan, whole, halves))
    if job.wants("tnt"):
        result = replace(result, tnt=tensor_normal_result(entry.weight, whole, halves))
    return result


def _numel(shapes: Any, tensors: Any, name: str) -> int:
    shape = shapes[name] if name in shapes else tensors[name].shape
    return int(torch.Size(shape).numel())


def _named(entry: Entry, settings: Settings) -> bool:
    return not settings.layers or any(fnmatch.fnmatchcase(entry.name, glob) for glob in settings.layers)


def _plan(settings: Settings, source: Source) -> Plan:
    def wanted(name: str) -> bool:
        return settings.analyses is None or name in settings.analyses

    return Plan(
        features=wanted("moments") or (wanted("kfac") and settings.kfac_approx == "expand"),
        signals=wanted("kfac"),
        kfac_approx=settings.kfac_approx,
        tensors=settings.statistic if wanted("tnt") and settings.fisher_type != "forward-only" else None,  # type: ignore[arg-type]
        fisher_type=settings.fisher_type,
        mc_samples=settings.mc_samples,
        dtype=torch.float64,  # ranks and condition numbers beyond 1e7 are not in a float32 product
        halves=source.samples is None or source.samples > 1,
        keep_rows=True,
    )


def _try(module: nn.Module, first: Any, source: Source) -> tuple[torch.Tensor, int]:
    """The output for a few examples, and the bytes of activations per example."""
    held = 0

    def count(_: nn.Module, __: Any, output: Any) -> None:
        nonlocal held
        if isinstance(output, torch.Tensor):
            held += output.numel() * output.element_size()

    handles = [m.register_forward_hook(count) for m in module.modules() if next(m.children(), None) is None]
    try:
        with torch.no_grad():
            z = output_tensor(call_model(module, first))
    except CurvlabError:
        raise
    except Exception as error:  # the model is not ours: whatever it raises about this data is the answer
        shape = source.info["input_shape"]
        raise CurvlabError(
            f"the model cannot run on {source.info['source']} (inputs of shape {tuple(shape)})",
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}",
            "give data of the shape the model was trained on",
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return z, held // max(1, batch_size(first))


def _batch_size(activations: int, max_memory: int | None) -> int:
    if max_memory is None:
        return BATCH_SIZE
    return max(1, min(BATCH_SIZE, max_memory // (8 * max(1, activations))))


def _check_wanted(settings: Settings, runnable: bool, data: bool, checkpoint: Checkpoint) -> None:
    asked = [name for name in settings.analyses or () if name in DATA_ANALYSES]
    if asked and not runnable:
        raise CurvlabError(f"'{asked[0]}' needs a network that runs", "this file holds weights only", "give --architecture")
    if asked and not data:
        raise CurvlabError(f"'{asked[0]}' needs data", "none was given and the file records none", "give --data")


def _what_would_give_more(runnable: bool, data: bool) -> list[str]:
    if not runnable:
        return ["weights only: the file has no graph; --architecture package.module:callable with --data gives the full profile"]
    return [] if data else ["weights only: --data gives moments and curvature factors too"]


def _model_facts(job: _Job) -> dict[str, Any]:
    checkpoint = job.checkpoint
    named = dict(checkpoint.module.named_parameters()) if checkpoint.module is not None else None
    count = sum(p.numel() for p in named.values()) if named is not None else sum(
        _numel(checkpoint.shapes, {}, name) for layer in checkpoint.layers if layer.kind != "buffer" for name in layer.tensors.values()
    )
    return {
        "path": None if checkpoint.path is None else str(checkpoint.path),
        "format": checkpoint.format,
        "sha256": checkpoint.sha256,
        "parameters": count,
        "runnable": checkpoint.module is not None,
        "architecture": checkpoint.architecture,
    }


def _settings_facts(job: _Job) -> dict[str, Any]:
    facts = job.settings.to_dict()
    if job.likelihood is not None:
        facts["likelihood"] = job.likelihood.name
    if job.source is not None:
        facts["batch_size"] = job.batch_size
        facts["products"] = "float64"
    facts["max_memory"] = job.settings.max_memory and gibibytes(job.settings.max_memory)
    facts["quantile_levels"] = list(QUANTILE_LEVELS)
    return facts
