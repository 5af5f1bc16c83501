"""Races: their results, frozen; `to_dict` is the section "training" of `curvlab.comparison/1`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from curvlab.comparison.performance_profile import PerformanceProfile
from curvlab.comparison.race_run import RaceRun
from curvlab.comparison.spread import Spread, spread
from curvlab.document.json import plain


@dataclass(frozen=True)
class Entrant:
    """One optimizer in one race, a run per seed.

    Attributes:
        optimizer: its name in `curvlab list optimizers`.
        settings: complete, as they were used.
        runs: in the order of the seeds.
    """

    optimizer: str
    settings: Mapping[str, Any]
    runs: tuple[RaceRun, ...]

    @property
    def time_to_target(self) -> Spread:
        """Training seconds until the target; a miss is infinite."""
        return spread(run.time_to_target for run in self.runs)

    @property
    def epochs_to_target(self) -> Spread:
        """The same in epochs, which do not depend on the machine."""
        return spread(run.epochs_to_target for run in self.runs)

    @property
    def met(self) -> int:
        """Runs that met the target."""
        return sum(run.time_to_target is not None for run in self.runs)

    @property
    def last_loss(self) -> Spread:
        """The training loss at the end; infinite for a run that diverged or failed."""
        return spread(None if run.lost else run.loss[-1] for run in self.runs)

    @property
    def last_test_loss(self) -> Spread:
        """The test loss at the end; infinite for a run that diverged or failed."""
        return spread(None if run.lost else run.test_loss[-1] for run in self.runs)

    def seconds(self, name: str) -> Spread:
        """Spread of one clock over the runs that have it."""
        return spread(run.seconds[name] for run in self.runs if run.seconds is not None)

    def memory(self, name: str) -> Spread:
        """Spread of `peak_memory`, `memory_before` or `state_bytes` over the runs that have it."""
        return spread(value for run in self.runs if (value := getattr(run, name)) is not None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values: {"seeds", "over_seeds", "optimizer", "settings"}."""
        summary = {
            "loss": self.last_loss,
            "test_loss": self.last_test_loss,
            "time_to_target": self.time_to_target,
            "epochs_to_target": self.epochs_to_target,
            "met": self.met,
            "seconds": {name: self.seconds(name) for name in ("train", "warm_start", "evaluation", "saving")},
            **{name: self.memory(name) for name in ("peak_memory", "memory_before", "state_bytes")},
        }
        seeds, over_seeds = plain(self.runs), plain(summary)
        return {
            "seeds": seeds,
            "over_seeds": over_seeds,
            "optimizer": self.optimizer,
            "settings": plain(self.settings),
        }


@dataclass(frozen=True)
class ProblemRace:
    """All optimizers on one problem.

    Attributes:
        problem: its name.
        conditions: {"problem", "data", "likelihood", "train_examples", "test_examples", "batch_size", "budget",
            "target", "dtype", "fresh_process"} that all had.
        entrants: label -> what came of it, in the order given.
    """

    problem: str
    conditions: Mapping[str, Any]
    entrants: Mapping[str, Entrant]

    @property
    def longest(self) -> float:
        """Most training seconds of any run: what a miss counts as at least."""
        return max(
            (run.seconds["train"] for one in self.entrants.values() for run in one.runs if run.seconds), default=0
        )


@dataclass(frozen=True)
class Races:
    """One race per problem, and the profile over them.

    Attributes:
        races: in the order given.
        seeds: that every optimizer ran with.
        environment: versions and machine.
        profile: over the problems that have a target; None with fewer than two.
    """

    races: tuple[ProblemRace, ...]
    seeds: tuple[int, ...]
    environment: Mapping[str, Any]
    profile: PerformanceProfile | None

    def to_dict(self) -> dict[str, Any]:
        """With one problem {"training": {label: …}}; with several {"races": {problem: {label: …}},
        "performance_profile": …}."""
        found = {
            race.problem: {label: entrant.to_dict() for label, entrant in race.entrants.items()} for race in self.races
        }
        if len(found) == 1:
            return {"training": next(iter(found.values()))}
        return {"races": found, "performance_profile": plain(self.profile)}

    def conditions(self) -> dict[str, Any]:
        """What all runs shared, as plain values: {"seeds", "environment", "problems": {problem: conditions}}."""
        problems = {race.problem: race.conditions for race in self.races}
        return dict(plain({"seeds": self.seeds, "environment": self.environment, "problems": problems}))
