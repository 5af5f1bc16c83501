"""Every optimizer's direction beside the baseline's, all from one forward and backward pass per batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from curvlab.analyses.environment import environment
from curvlab.comparison.at_weights import at_weights
from curvlab.comparison.direction_study import DirectionStudy
from curvlab.comparison.hashes import weights_hash
from curvlab.comparison.optimizer_specs import OptimizerSpec, check, specs
from curvlab.comparison.reference import OptimizerReference
from curvlab.comparison.request import BASELINE, EXACT, STEPS, Request
from curvlab.comparison.results import Comparison, Directions
from curvlab.comparison.trajectory import Measured, Report, along_trajectory
from curvlab.comparison.workload import Workload
from curvlab.errors import CommandError
from curvlab.optim.catalogue import catalogue
from curvlab.optim.core import Optimizer
from curvlab.optim.declared import settings_of
from curvlab.optim.registry import OPTIMIZERS

AVERAGES = {"momentum": 0.9, "decay": 0.9}
"""Decay of gradient and statistics for all optimizers (Ren 2022, section 4.3.4)."""


def directions(workload: Workload, optimizers: Sequence[str], asked: Request, report: Report) -> Comparison:
    """See `compare`; on a workload with endless batches along the baseline's trajectory, else at its weights."""
    assert asked.baseline is not None
    found = specs(optimizers, asked.settings, also=[asked.baseline])
    common = {**AVERAGES, "inverse_interval": asked.interval, "seed": asked.data_options.seed}
    complete = [_complete(one, workload, common) for one in found]
    reference = _complete(_baseline(asked), workload, common)
    hashes = {"initial_weights": weights_hash(workload.model), "data": workload.data_hash}
    study = DirectionStudy(workload, complete, reference, asked.data_options.seed, asked.layers)
    try:
        if workload.moves:
            measured = along_trajectory(study, asked.steps or STEPS, asked.dampings, report, asked.warm_start)
        else:
            measured = at_weights(study, asked.dampings, report)
    finally:
        study.close()
    return Comparison(
        problem=workload.name,
        baseline=asked.baseline,
        steps=measured.steps,
        measured=measured.at,
        warm_start=asked.warm_start and workload.moves,
        interval=asked.interval,
        damping_at=measured.swept,
        optimizers={one.label: _result(one.label, one, study, measured) for one in complete},
        reference=_result("", reference, study, measured),
        seed=asked.data_options.seed,
        hashes=hashes,
        data=workload.info,
        environment=environment(next(workload.model.parameters()).device),
        notes=tuple(_notes(workload, study, complete)),
    )


def _baseline(asked: Request) -> OptimizerSpec:
    name = asked.baseline or BASELINE
    settings = dict((asked.settings or {}).get(name, {}))
    one = OptimizerSpec(name, name, settings)
    if name not in EXACT:
        check([one])
    elif wrong := sorted(set(settings) - {"lr", "damping"}):
        raise CommandError(f"{name} has no setting '{wrong[0]}'", do="there are lr and damping")
    return one


def _complete(one: OptimizerSpec, workload: Workload, common: Mapping[str, Any]) -> OptimizerSpec:
    """With what is common to all behind the settings asked for, and what the problem recommends behind that."""
    kind = None if one.optimizer in EXACT else OPTIMIZERS[one.optimizer]
    for name, field in settings_of(kind).items() if kind is not None else ():
        if not field.setting.of_steps or one.settings.get(name, field.default) == field.default:
            continue
        raise CommandError(
            f"{one.label}.{name} is about the length of steps",
            "in a comparison of directions only the baseline takes steps",
            "compare it in a race: --mode training",
        )
    recommended = workload.settings.get(BASELINE if one.optimizer in EXACT else one.optimizer, {})
    if kind is None:
        start = {name: recommended.get(name, 0.01) for name in ("lr", "damping")}
        return replace(one, settings={**start, **one.settings})
    if not workload.moves:
        common = {**common, **kind.at_fixed_weights}
    return replace(one, settings=one.completed(common, recommended))


def _result(label: str, one: OptimizerSpec, study: DirectionStudy, measured: Measured) -> Directions:
    optimizer = _optimizer(label, study)
    points = measured.points.get("" if label in study.alike else label, ())
    return Directions(
        one.optimizer,
        dict(one.settings) if optimizer is None else {**catalogue()[one.optimizer].settings, **one.settings},
        measured.agreements[label],
        {} if optimizer is None else _coverage(study.model, optimizer),
        tuple({"value": p.value, "mean": p.mean, "cosine": dict(p.cosine)} for p in points),
    )


def _optimizer(label: str, study: DirectionStudy) -> Optimizer | None:
    if label in study.shadows:
        return study.shadows[label].optimizer
    return study.reference.shadow.optimizer if isinstance(study.reference, OptimizerReference) else None


def _coverage(model: nn.Module, optimizer: Optimizer) -> dict[str, int]:
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    counted: Counter[str] = Counter()
    for name, treated in optimizer.coverage().items():
        counted[treated] += sizes[name]
    return dict(counted)


def _notes(workload: Workload, study: DirectionStudy, complete: Sequence[OptimizerSpec]) -> list[str]:
    notes = list(workload.notes)
    if study.fisher.missing is not None:
        notes.append(f"no cosine in the Fisher's metric and no predicted decrease: {study.fisher.missing}")
    if not isinstance(study.reference, OptimizerReference):
        exact = study.reference.baseline
        notes.append(f"{exact.matrix}: solved to a relative residual of {exact.worst:.1e} at worst")
    notes += [f"{label}: no direction any more: {one.failed}" for label, one in study.shadows.items() if one.failed]
    for one in complete:
        kind = OPTIMIZERS[one.optimizer]
        if not workload.moves and kind.learns_from_steps:
            notes.append(f"{one.label} learns from its own steps: at fixed weights it shows where it starts")
        if not workload.moves and kind.averages_in_order:
            notes.append(f"{one.label}: its second moment is an average over the batches in their order, by its decay")
    return notes
