"""One run of a race: an optimizer with a seed, its losses on the clock of training, what it took and how it ended."""

from __future__ import annotations

import gc
import json
import math
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from curvlab.comparison.hashes import data_order_hash, weights_hash
from curvlab.comparison.race_settings import ENDLESS
from curvlab.training.entry import Entry
from curvlab.training.interruption import Interruption
from curvlab.training.loop import Report, Supervision, train_loop
from curvlab.training.memory import peak_memory, state_bytes
from curvlab.training.own_network import OwnNetwork
from curvlab.training.run import Run
from curvlab.training.run_folder import RunFolder
from curvlab.training.seeded import seeded
from curvlab.training.settings import TrainingSettings
from curvlab.training.target import parse_target
from curvlab.training.task import Task, task
from curvlab.training.train import optimizer_settings

Numbers = tuple[float | None, ...]


@dataclass(frozen=True)
class RaceRun:
    """One optimizer with one seed. Lists run over the evaluations, the first before any step.

    Attributes:
        seed: of everything random.
        loss: over the whole training set; None where it was not finite.
        test_loss: over the examples held out.
        steps: taken before each evaluation.
        epochs: passes over the training set, a fraction when a budget ended in the middle of one.
        train_seconds: on the clock of training at each evaluation, warm start included, evaluations excluded.
        metrics: {"train" | "test": {metric: list}}.
        seconds: {"train", "warm_start", "evaluation", "saving"}; train holds warm_start, saving is the writing of the
            log.
        time_to_target: training seconds at the first evaluation that met the target; None when none did, when there
            was no target, and for a run that diverged or failed, whatever it met before.
        epochs_to_target: the same in epochs.
        diverged: whether it did, by the rules of training.
        reason: in which way, one sentence.
        failed: why there is no run, one sentence: its optimizer does not fit, or its process died. Else None.
        skipped: steps not taken because the gradient was not finite.
        peak_memory: most bytes of its process, all libraries included; None where it had no process of its own.
        memory_before: the same before network and optimizer were made, with libraries and data.
        device_peak_memory: of CUDA's allocator; else None.
        state_bytes: of the optimizer's `state_dict` at the end.
        hashes: {"initial_weights", "data_order"}, sha256.
    """

    seed: int
    loss: Numbers = ()
    test_loss: Numbers = ()
    steps: tuple[int, ...] = ()
    epochs: tuple[float, ...] = ()
    train_seconds: tuple[float, ...] = ()
    metrics: Mapping[str, Mapping[str, Numbers]] = field(default_factory=dict)
    seconds: Mapping[str, float] | None = None
    time_to_target: float | None = None
    epochs_to_target: float | None = None
    diverged: bool = False
    reason: str | None = None
    failed: str | None = None
    skipped: int = 0
    peak_memory: int | None = None
    memory_before: int | None = None
    device_peak_memory: int | None = None
    state_bytes: int | None = None
    hashes: Mapping[str, str] | None = None

    @property
    def lost(self) -> bool:
        """Whether it diverged or failed: it then counts as infinitely slow, its last loss as infinite."""
        return self.diverged or self.failed is not None

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> RaceRun:
        """From plain values, lists become tuples."""
        known = {entry.name for entry in fields(cls)}
        return cls(**{key: _tuples(value) for key, value in values.items() if key in known})


def run_once(
    settings: TrainingSettings,
    training_seconds: float | None,
    report: Report,
    *,
    own_process: bool,
    own: OwnNetwork | None = None,
) -> RaceRun:
    """Train as `settings` say in this process and say what came of it; nothing is left on disk, and the
    run does not stop at a target.

    Args:
        settings: with the target that is looked for.
        training_seconds: the budget where it is of seconds; `settings.steps` is then `ENDLESS`.
        report: told the steps taken.
        own_process: whether the process's peak memory is this run's.
        own: see `task`.

    Raises:
        CurvlabError: it cannot be begun.
    """
    with seeded(settings), tempfile.TemporaryDirectory(prefix="curvlab-race-") as folder:
        chosen = task(settings, own)
        before, used = peak_memory(), optimizer_settings(settings, chosen.problem)
        rehearse(settings, used, chosen)
        if own_process:
            gc.collect()  # a network thrown away shall not count in the peak memory of the next
        run = Run(settings, used, chosen, RunFolder(Path(folder)))
        hashes = {
            "initial_weights": weights_hash(run.model),
            "data_order": data_order_hash(run, epochs_of(run, settings)),
        }
        run.remember(run.evaluation())
        outcome = train_loop(
            run, Supervision(None, None, Interruption(), report, training_seconds, save=lambda _run: None)
        )
        diverged, line = outcome.status == "diverged", run.line()
        entries = [json.loads(text) for text in run.folder.metrics.read_text(encoding="utf-8").splitlines()]
        reached = None if diverged else _reached(entries, settings.target)
        return RaceRun(
            seed=settings.seed,
            loss=tuple(entry["train"]["loss"] for entry in entries),
            test_loss=tuple(entry["test"]["loss"] for entry in entries),
            steps=tuple(entry["step"] for entry in entries),
            epochs=tuple(entry["epoch"] for entry in entries),
            train_seconds=tuple(entry["seconds"]["train"] for entry in entries),
            metrics={
                part: {name: tuple(entry[part][name] for entry in entries) for name in chosen.problem.metrics}
                for part in ("train", "test")
            },
            seconds=line["seconds"],
            time_to_target=None if reached is None else reached["seconds"]["train"],
            epochs_to_target=None if reached is None else reached["epoch"],
            diverged=diverged,
            reason=outcome.reason,
            skipped=line["skipped"],
            peak_memory=line["memory"] if own_process else None,
            memory_before=before if own_process else None,
            device_peak_memory=line["device_memory"] if own_process else None,
            state_bytes=state_bytes(run.optimizer.state_dict()),
            hashes=hashes,
        )


def rehearse(settings: TrainingSettings, used: dict[str, Any], chosen: Task) -> None:
    """A step on a network that is thrown away, so that no clock shows how long libraries take when first called."""
    # What fails here fails in the race as well, and is told there.
    with suppress(Exception):
        run = Run(settings, used, chosen, RunFolder(Path()))
        if run.optimizer.warms and settings.warm_start:
            run.optimizer.warm_start(islice(run.closures(), 1))
        run.take_step(*next(run.batches()))
    torch.manual_seed(settings.seed)


def epochs_of(run: Run, settings: TrainingSettings) -> int:
    """The epochs whose order is hashed: those of the budget; where it is of seconds, the problem's own number."""
    if settings.steps == ENDLESS:
        return run.task.problem.epochs
    return math.ceil(run.total / run.per_epoch)


def _reached(entries: list[Entry], target: str | None) -> Entry | None:
    if target is None:
        return None
    goal = parse_target(target)
    return next((entry for entry in entries if goal.met(entry)), None)


def _tuples(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _tuples(one) for key, one in value.items()}
    return tuple(_tuples(one) for one in value) if isinstance(value, list) else value
