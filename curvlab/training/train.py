"""`train(settings)`: a network trained, everything about it on disk, and a frozen result."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from curvlab.analyses.environment import environment
from curvlab.document.json import dumps
from curvlab.errors import CommandError
from curvlab.fields import refusal
from curvlab.formats.digest import sha256
from curvlab.formats.whole_file import whole_file
from curvlab.optim.catalogue import catalogue
from curvlab.problems.problem import Problem
from curvlab.training.configuration import continued, folder, fresh
from curvlab.training.entry import OPTIONAL, entry_shape
from curvlab.training.factors import save_factors
from curvlab.training.interruption import Interruption
from curvlab.training.loop import Outcome, Report, Supervision, train_loop
from curvlab.training.memory import state_bytes
from curvlab.training.result import TrainingResult
from curvlab.training.run import Run
from curvlab.training.run_folder import RunFolder
from curvlab.training.saved_run import saved_state
from curvlab.training.seeded import seeded
from curvlab.training.settings import TrainingSettings
from curvlab.training.summary_gate import summary_shape, verdicts
from curvlab.training.target import Target, parse_target
from curvlab.training.task import Task, data_bytes, task
from curvlab.training.trust import check_trusted


@dataclass(frozen=True)
class Start:
    """How a run begins: anew, over the remains of another (`force`), or where another stopped (`resume`).

    `trust` lets the saved run name code that is imported, and paths that are read.
    """

    resume: bool = False
    force: bool = False
    command: tuple[str, ...] = ()
    trust: bool = False


def train(
    values: Mapping[str, Any],
    start: Start = Start(),
    report: Report = lambda *_: None,
    note: Callable[[str], None] = print,
) -> TrainingResult:
    """Train as `values` say (names and meanings of `TrainingSettings`); torch's generators are left as they were.

    Args:
        values: only what was decided; the rest has the defaults, or for a run that goes on what it had.
        start: anew or not.
        report: told how far it is.
        note: told what the user should know meanwhile, a sentence each.

    Raises:
        CurvlabError: it cannot be begun.
    """
    if start.resume and start.force:
        raise CommandError("--resume and --force exclude each other", "one goes on with a run, the other deletes it")
    began = time.monotonic()
    report("reading the data", 0, 1)
    state = None
    if start.resume:
        place = RunFolder(folder(values))
        place.check()
        state = saved_state(place)
        if not start.trust:
            check_trusted(values, state["settings"], place)
        settings = continued(values, state["settings"], state["used"])
        settings = replace(settings, out=str(place.path))
    else:
        settings = fresh(values)
        place = RunFolder(Path(settings.folder))
        if not start.force:
            place.check_free()
    with seeded(settings):
        chosen = task(settings)
        used = dict(state["used"]) if state else optimizer_settings(settings, chosen.problem)
        notes = list(_notes(settings, chosen, state))
        run = Run(settings, used, chosen, place)
        target = _target(run)
        since = None if state is None else int(state["step"])
        if state:
            run.resume(state)
            state = None  # its file is mapped into memory, and will be replaced
            place.summary.unlink(missing_ok=True)  # it is of the part before
        else:
            place.begin()
        for sentence in notes:
            note(sentence)
        report("reading the data", 1, 1)
        deadline = None if settings.max_seconds is None else began + settings.max_seconds
        with Interruption() as interruption:
            try:
                outcome = train_loop(run, Supervision(target, deadline, interruption, report))
            except Exception:
                if since is None and run.step == 0:
                    place.give_up()
                raise
            return _finished(run, outcome, target, tuple(notes), start)


def optimizer_settings(settings: TrainingSettings, problem: Problem) -> dict[str, Any]:
    """The user's over the problem's recommended ones; everything drawn follows the run's seed."""
    defaults = catalogue()[settings.optimizer].settings
    seeded = {"seed": settings.seed} if "seed" in defaults else {}
    return {**seeded, **problem.settings.get(settings.optimizer, {}), **settings.settings}


def plan(values: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes of a run, nothing of it computed or written (`--dry-run`)."""
    settings = fresh(values)
    with seeded(settings):
        chosen = task(settings)
        run = Run(settings, optimizer_settings(settings, chosen.problem), chosen, RunFolder(Path(settings.folder)))
        parameters = sum(p.numel() for p in run.model.parameters())
        return {
            "schema": "curvlab.training-plan/1",
            "problem": chosen.problem.name,
            "optimizer": settings.optimizer,
            "optimizer_settings": {**catalogue()[settings.optimizer].settings, **run.used},
            "parameters": parameters,
            "train_examples": len(run.train_part),
            "test_examples": len(run.test_part),
            "batch_size": run.batch_size,
            "steps_per_epoch": run.per_epoch,
            "steps": run.total,
            "data_bytes": data_bytes(chosen.split, getattr(torch, settings.dtype)),
            "model_bytes": state_bytes(run.model.state_dict()),
            "folder": str(run.folder.path),
        }


def _target(run: Run) -> Target | None:
    """The target, once it is known that its numbers, and those of the gates, will exist in this run."""
    metrics, line = run.task.problem.metrics, run.line()
    never = {name: None for name in OPTIONAL if line[name] is None}
    target = None if run.settings.target is None else parse_target(run.settings.target)
    missing = [] if target is None else target.missing({**entry_shape(metrics), **never})
    memory = {"peak": line["memory"], "device_peak": line["device_memory"], "state": 1}
    for text in run.settings.fail_if:
        missing += parse_target(text, "gate").missing({**summary_shape(metrics), "memory": memory})
    missing += _idle(run)
    if missing:
        raise refusal(missing)
    return target


def _idle(run: Run) -> Iterator[str]:
    """What was asked for and will never happen in a run of this length."""
    epochs = math.ceil(run.total / run.per_epoch)
    for name, length, what in (
        ("log_every", run.total, "steps"),
        ("save_every", run.total, "steps"),
        ("snapshots", epochs, "epochs"),
    ):
        every = getattr(run.settings, name)
        if every is not None and every > length:
            yield f"{name} is {every}, and the run has {length} {what}: it would never happen"


def _notes(settings: TrainingSettings, chosen: Task, state: dict[str, Any] | None) -> Iterator[str]:
    yield from chosen.notes
    if settings.optimizer not in chosen.problem.settings and settings.architecture is None:
        yield (
            f"{settings.optimizer} was not tuned for {chosen.problem.name}: its own defaults are used where nothing "
            "is set (--set)"
        )
    if state is None:
        return
    yield f"going on after step {state['step']}"
    moved = [name for name in ("device", "threads") if state["settings"][name] != getattr(settings, name)]
    if moved:
        yield f"another {' and '.join(moved)} than before: the numbers need not agree to the last bit with one run"


def _finished(
    run: Run, outcome: Outcome, target: Target | None, notes: tuple[str, ...], start: Start
) -> TrainingResult:
    """Everything that is left to write, and the result."""
    with run.clocks.measure("saving"):
        run.folder.check()
        if run.settings.save_factors and run.optimizer.averages:
            save_factors(run.folder.factors, run.optimizer, run.used)
    result = _result(run, outcome, target, notes, start)
    result = replace(result, gates=verdicts(run.settings.fail_if, result.to_dict()))
    with whole_file(run.folder.summary) as beside:
        beside.write_text(dumps(result.to_dict()), encoding="utf-8")
    return result


def _result(run: Run, outcome: Outcome, target: Target | None, notes: tuple[str, ...], start: Start) -> TrainingResult:
    settings, chosen, optimizer = run.settings, run.task, run.optimizer
    parameters = dict(run.model.named_parameters())
    coverage: Counter[str] = Counter()
    for name, treatment in optimizer.coverage().items():
        coverage[treatment] += parameters[name].numel()
    seconds = run.clocks.seconds()
    entry, line = run.entry or {}, run.line()
    met = target is not None and outcome.status == "target-met"
    return TrainingResult(
        status=outcome.status,
        reason=outcome.reason,
        problem={
            "name": chosen.problem.name,
            "data": chosen.split.train.source,
            "spec": settings.data or chosen.problem.data,
            "likelihood": chosen.problem.likelihood,
            "train_examples": len(chosen.split.train),
            "test_examples": len(chosen.split.test),
            "fingerprint": chosen.fingerprint,
        },
        model={
            "path": str(run.folder.model),
            "step": run.saved,
            "parameters": sum(p.numel() for p in parameters.values()),
            "sha256": sha256([run.folder.model]),
            "self_contained": chosen.architecture in (None, "hf"),
            "data": chosen.data,
        },
        optimizer=settings.optimizer,
        settings={
            **settings.to_dict(),
            "batch_size": run.batch_size,
            "settings": {**catalogue()[settings.optimizer].settings, **run.used},
        },
        steps=run.step,
        epochs=run.epochs(),
        evaluated=entry.get("step"),
        train=entry.get("train"),
        test=entry.get("test"),
        best=run.best,
        seconds={**seconds, "total": sum(seconds.values()) - seconds["warm_start"]},
        target=None if target is None else {"expression": target.gate.text, "met": met},
        skipped=optimizer.skipped,
        failures={unit: count for unit, count in optimizer.failures.items() if count},
        counters=optimizer.counters(),
        coverage=dict(coverage),
        memory={
            "peak": line["memory"],
            "device_peak": line["device_memory"],
            "state": state_bytes(optimizer.state_dict()),
        },
        seed=settings.seed,
        environment=environment(run.device),
        command=start.command,
        folder=run.folder.path,
        notes=notes,
    )
