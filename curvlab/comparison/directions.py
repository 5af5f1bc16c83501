"""Every optimizer's direction beside the baseline's, all from one forward and backward pass per batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from curvlab.analyses.environment import environment
from curvlab.comparison.at_weights import at_weights
from curvlab.comparison.contestants import Contestant, check, contestants
from curvlab.comparison.hashes import weights_hash
from curvlab.comparison.panel import Panel
from curvlab.comparison.reference import EXACT, OptimizerReference
from curvlab.comparison.request import BASELINE, STEPS, Request
from curvlab.comparison.results import Comparison, Directions
from curvlab.comparison.subject import Subject
from curvlab.comparison.trajectory import Measured, Report, along_trajectory
from curvlab.errors import CommandError
from curvlab.optim.catalogue import catalogue
from curvlab.optim.core import Optimizer
from curvlab.optim.declared import settings_of
from curvlab.optim.registry import OPTIMIZERS

AVERAGES = {"momentum": 0.9, "decay": 0.9}
"""Of gradient and statistics, for all (ren 4.3.4)."""


def directions(subject: Subject, optimizers: Sequence[str], asked: Request, report: Report) -> Comparison:
    """See `compare`; on a subject with endless batches along the baseline's trajectory, else at its weights."""
    found = contestants(optimizers, asked.settings, also=[asked.baseline])
    common = {**AVERAGES, "inverse_interval": asked.interval, "seed": asked.sampling.seed}
    complete = [_complete(one, subject, common) for one in found]
    reference = _complete(_baseline(asked), subject, common)
    hashes = {"initial_weights": weights_hash(subject.model), "data": subject.data_hash}
    panel = Panel(subject, complete, reference, asked.sampling.seed, asked.layers)
    try:
        if subject.moves:
            measured = along_trajectory(panel, asked.steps or STEPS, asked.dampings, report, asked.warm_start)
        else:
            measured = at_weights(panel, asked.dampings, report)
    finally:
        panel.close()
    return Comparison(
        problem=subject.name,
        baseline=asked.baseline,
        steps=measured.steps,
        measured=measured.at,
        warm_start=asked.warm_start and subject.moves,
        interval=asked.interval,
        damping_at=measured.swept,
        optimizers={one.label: _result(one.label, one, panel, measured) for one in complete},
        reference=_result("", reference, panel, measured),
        seed=asked.sampling.seed,
        hashes=hashes,
        data=subject.info,
        environment=environment(next(subject.model.parameters()).device),
        notes=tuple(_notes(subject, panel, complete)),
    )


def _baseline(asked: Request) -> Contestant:
    settings = dict((asked.settings or {}).get(asked.baseline, {}))
    one = Contestant(asked.baseline, asked.baseline, settings)
    if asked.baseline not in EXACT:
        check([one])
    elif wrong := sorted(set(settings) - {"lr", "damping"}):
        raise CommandError(f"{asked.baseline} has no setting '{wrong[0]}'", do="there are lr and damping")
    return one


def _complete(one: Contestant, subject: Subject, common: Mapping[str, Any]) -> Contestant:
    """With what is common to all behind the settings asked for, and what the problem recommends behind that."""
    kind = None if one.optimizer in EXACT else OPTIMIZERS[one.optimizer]
    for name, field in settings_of(kind).items() if kind is not None else ():
        if not field.setting.of_steps or one.settings.get(name, field.default) == field.default:
            continue
        raise CommandError(
            f"{one.label}.{name} is about the length of steps",
            "in a comparison of directions nobody takes steps of its own",
            "compare it in a race: --mode training",
        )
    recommended = subject.settings.get(BASELINE if one.optimizer in EXACT else one.optimizer, {})
    if kind is None:
        start = {name: recommended.get(name, 0.01) for name in ("lr", "damping")}
        return replace(one, settings={**start, **one.settings})
    if not subject.moves:
        common = {**common, **kind.at_fixed_weights}
    return replace(one, settings=one.completed(common, recommended))


def _result(label: str, one: Contestant, panel: Panel, measured: Measured) -> Directions:
    optimizer = _optimizer(label, panel)
    points = measured.points.get("" if label in panel.alike else label, ())
    return Directions(
        one.optimizer,
        dict(one.settings) if optimizer is None else {**catalogue()[one.optimizer].settings, **one.settings},
        measured.agreements[label],
        {} if optimizer is None else _coverage(panel.model, optimizer),
        tuple({"value": p.value, "mean": p.mean, "cosine": dict(p.cosine)} for p in points),
    )


def _optimizer(label: str, panel: Panel) -> Optimizer | None:
    if label in panel.followers:
        return panel.followers[label].optimizer
    return panel.reference.follower.optimizer if isinstance(panel.reference, OptimizerReference) else None


def _coverage(model: nn.Module, optimizer: Optimizer) -> dict[str, int]:
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    counted: Counter[str] = Counter()
    for name, treated in optimizer.coverage().items():
        counted[treated] += sizes[name]
    return dict(counted)


def _notes(subject: Subject, panel: Panel, complete: Sequence[Contestant]) -> list[str]:
    notes = list(subject.notes)
    if panel.fisher.missing is not None:
        notes.append(f"no cosine in the Fisher's metric and no predicted decrease: {panel.fisher.missing}")
    if not isinstance(panel.reference, OptimizerReference):
        exact = panel.reference.baseline
        notes.append(f"{exact.matrix}: solved to a relative residual of {exact.worst:.1e} at worst")
    notes += [f"{label}: no direction any more: {one.failed}" for label, one in panel.followers.items() if one.failed]
    for one in complete:
        kind = OPTIMIZERS[one.optimizer]
        if not subject.moves and kind.learns_from_steps:
            notes.append(f"{one.label} learns from its own steps: at fixed weights it shows where it starts")
        if not subject.moves and kind.averages_in_order:
            notes.append(f"{one.label}: its second moment is an average over the batches in their order, by its decay")
    return notes
