"""`race(settings)`: every optimizer from the same weights, over the same batches in the same order, on one budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from curvlab.analyses.environment import environment
from curvlab.comparison.performance_profile import PerformanceProfile, performance_profile
from curvlab.comparison.race_process import run_apart
from curvlab.comparison.race_results import Entrant, ProblemRace, Races
from curvlab.comparison.race_run import RaceRun, run_once
from curvlab.comparison.race_settings import ENDLESS, RaceSettings
from curvlab.device import pick_device
from curvlab.errors import CurvlabError
from curvlab.optim.catalogue import catalogue
from curvlab.problems.problem import Problem
from curvlab.quoting import reason
from curvlab.training.seeded import seeded
from curvlab.training.settings import TrainingSettings
from curvlab.training.task import task
from curvlab.training.train import optimizer_settings

Progress = Callable[[str, int, int | None], None]
"""report(stage, done, total); total is None where it is not known."""


def race(settings: RaceSettings, report: Progress = lambda *_: None) -> Races:
    """Train every optimizer on every problem, one run at a time. The optimizers take turns, seed by seed, so that a
    machine that becomes slower meanwhile is slower for all of them.

    Args:
        settings: who, on what, how far.
        report: told of each run how far it is.

    Raises:
        CurvlabError: a problem cannot be had, or the runs of a seed did not begin alike.
    """
    # A fresh process would else take torch's own choice, which need not be this process's.
    settings = replace(settings, threads=settings.threads or torch.get_num_threads())
    first = next(iter(settings.optimizers))
    # Before any run: whatever is not there shall not be missed after an hour.
    known = [_known(settings, settings.training(name, first, settings.seeds[0])) for name in settings.names]
    races = tuple(_race(settings, problem, conditions, report) for problem, conditions in known)
    with seeded(settings.training(settings.names[0], first, settings.seeds[0])):
        machine = environment(pick_device(settings.device))
    return Races(races, settings.seeds, machine, profile_of(races))


def check_alike(problem: str, seed: int, runs: Mapping[str, RaceRun]) -> None:
    """Raise CurvlabError unless all runs that there are had the same initial weights and order of the data."""
    hashes = {label: run.hashes for label, run in runs.items() if run.hashes is not None}
    for what in ("initial_weights", "data_order"):
        found = {label: one[what][:12] for label, one in hashes.items()}
        if len(set(found.values())) > 1:
            shown = ", ".join(f"{label} {short}…" for label, short in found.items())
            raise CurvlabError(
                f"the runs on '{problem}' with seed {seed} did not have the same {what.replace('_', ' ')}",
                f"their sha256 are {shown}",
                "this is no fair race: an optimizer or problem draws random numbers that the seed does not decide",
            )


def profile_of(races: Sequence[ProblemRace]) -> PerformanceProfile | None:
    """Over the problems that have a target, times being medians over seeds; None with fewer than two."""
    timed = [one for one in races if one.conditions["target"] is not None]
    if len(timed) < 2:
        return None
    times = {
        one.problem: {label: entrant.time_to_target.median for label, entrant in one.entrants.items()} for one in timed
    }
    return performance_profile(times, {one.problem: one.longest for one in timed})


def _race(settings: RaceSettings, problem: Problem, conditions: Mapping[str, Any], report: Progress) -> ProblemRace:
    name = conditions["problem"]
    runs: dict[str, list[RaceRun]] = {label: [] for label in settings.optimizers}
    for seed in settings.seeds:
        for label in settings.optimizers:
            stage = f"{name}, {label}, seed {seed}" if len(settings.names) > 1 else f"{label}, seed {seed}"
            runs[label].append(_run(settings, settings.training(name, label, seed), stage, report))
        check_alike(name, seed, {label: of_label[-1] for label, of_label in runs.items()})
    entrants = {label: _entrant(settings, problem, label, tuple(runs[label])) for label in runs}
    return ProblemRace(name, conditions, entrants)


def _run(settings: RaceSettings, training: TrainingSettings, stage: str, report: Progress) -> RaceRun:
    def told(activity: str, done: int, total: int | None) -> None:
        if activity == "training steps":
            report(stage, done, None if total == ENDLESS else total)

    report(stage, 0, None)
    if settings.fresh_process:
        return run_apart(training, settings.seconds, told)
    try:
        return run_once(training, settings.seconds, told, own_process=False, own=settings.own)
    except Exception as error:  # a process of its own would have died of it, and the race gone on as well
        sentence = str(error) if isinstance(error, CurvlabError) else f"{type(error).__name__}: {reason(error)}"
        return RaceRun(training.seed, failed=sentence)


def _entrant(settings: RaceSettings, problem: Problem, label: str, runs: tuple[RaceRun, ...]) -> Entrant:
    training = settings.training(problem.name, label, settings.seeds[0])
    used = {**catalogue()[training.optimizer].settings, **optimizer_settings(training, problem)}
    if "seed" in used and "seed" not in training.settings:
        del used["seed"]  # every run's is its own
    return Entrant(training.optimizer, used, runs)


def _known(settings: RaceSettings, training: TrainingSettings) -> tuple[Problem, dict[str, Any]]:
    """The problem, and what all have on it, once it is known that its data is there."""
    with seeded(training):
        found = task(training, settings.own)
    examples = len(found.split.train)
    return found.problem, {
        "problem": found.problem.name,
        "data": found.split.train.source,
        "likelihood": found.problem.likelihood,
        "train_examples": examples,
        "test_examples": len(found.split.test),
        "batch_size": min(found.problem.batch_size, examples),
        "budget": settings.budget or {"epochs": found.problem.epochs},
        "target": training.target,
        "dtype": settings.dtype,
        "fresh_process": settings.fresh_process,
    }
