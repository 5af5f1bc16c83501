"""RaceSettings: who runs, on what and how far, as one frozen value; everything wrong with it is said at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from math import isfinite
from types import MappingProxyType
from typing import Any

from curvlab.fields import refusal
from curvlab.training.settings import TrainingSettings, wrong

ENDLESS = 10**9
"""Steps of a run whose budget is of seconds."""
BUDGETS = ("epochs", "steps", "seconds")


@dataclass(frozen=True)
class RaceSettings:
    """Races between optimizers; everyone has the same problem, seed and budget.

    Attributes:
        problems: names of `curvlab list problems`; each is a race of its own.
        optimizers: label -> {"optimizer": name, setting: value, ...}; without "optimizer" the label is the name. What
            is not set comes from the problem's recommendation, then from the optimizer's defaults, as in training.
        seeds: of weights, held-out examples, order of the data and everything drawn; every optimizer runs with each.
        epochs: the budget as passes over the training set.
        steps: or as steps.
        seconds: or as training seconds, warm start included, evaluation excluded. A step that began before the end is
            completed. With none of the three it is the problem's number of epochs.
        target: a comparison over an evaluation such as 'train.loss<0.3', for all problems or by problem; nobody stops
            at it.
        data: in place of a problem's own, for one problem.
        device: as of `TrainingSettings`, like `dtype` and `max_memory`.
        dtype: "float32" or "float64".
        threads: of the processor; None: as many as torch has here.
        max_memory: bytes that the examples may take.
        fresh_process: run each in a process of its own, so that its peak memory is its own; problems and optimizers
            that only this process knows need False.

    Raises:
        CommandError: naming everything that is wrong.
    """

    problems: tuple[str, ...]
    optimizers: Mapping[str, Mapping[str, Any]]
    seeds: tuple[int, ...] = (0,)
    epochs: int | None = None
    steps: int | None = None
    seconds: float | None = None
    target: str | Mapping[str, str] | None = None
    data: str | None = None
    device: str = "auto"
    dtype: str = "float32"
    threads: int | None = None
    max_memory: int | None = None
    fresh_process: bool = True

    def __post_init__(self) -> None:
        for name in ("problems", "seeds"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        frozen = {label: MappingProxyType(dict(entry)) for label, entry in self.optimizers.items()}
        object.__setattr__(self, "optimizers", MappingProxyType(frozen))
        # The same mistake shows with every optimizer and problem that meets it: it is said once.
        if found := list(dict.fromkeys((*self._wrong_together(), *self._wrong_runs()))):
            raise refusal(found)

    @property
    def budget(self) -> dict[str, float] | None:
        """{"epochs" | "steps" | "seconds": number}; None: every problem's own number of epochs."""
        return next(({name: getattr(self, name)} for name in BUDGETS if getattr(self, name) is not None), None)

    def target_of(self, problem: str) -> str | None:
        """The target of one problem."""
        return self.target.get(problem) if isinstance(self.target, Mapping) else self.target

    def training(self, problem: str, label: str, seed: int) -> TrainingSettings:
        """The settings of one run.

        Raises:
            CommandError: they are wrong.
        """
        return TrainingSettings(**self._values(problem, label, seed))

    def _values(self, problem: str, label: str, seed: int) -> dict[str, Any]:
        settings = dict(self.optimizers[label])
        return {
            "optimizer": settings.pop("optimizer", label),
            "problem": problem,
            "data": self.data,
            "settings": settings,
            "epochs": self.epochs,
            "steps": ENDLESS if self.seconds is not None else self.steps,
            "seed": seed,
            "device": self.device,
            "dtype": self.dtype,
            "threads": self.threads,
            "target": self.target_of(problem),
            "max_memory": self.max_memory,
        }

    def _wrong_runs(self) -> Iterator[str]:
        for problem, label, seed in product(self.problems, self.optimizers, self.seeds):
            yield from wrong(self._values(problem, label, seed))

    def _wrong_together(self) -> Iterator[str]:
        for name, values in (("problem", self.problems), ("optimizer", self.optimizers), ("seed", self.seeds)):
            if not values:
                yield f"a race needs at least one {name}"
            if len(set(values)) < len(tuple(values)):
                yield f"a {name} is given twice: {', '.join(map(str, values))}"
        given = [name for name in BUDGETS if getattr(self, name) is not None]
        if len(given) > 1:
            yield f"a race has one budget, not {' and '.join(given)}"
        if self.seconds is not None and not _is_time(self.seconds):
            yield f"seconds is {self.seconds!r}, not a number above 0"
        if self.data is not None and len(self.problems) > 1:
            yield "data belongs to one problem"
        for problem in self.target if isinstance(self.target, Mapping) else ():
            if problem not in self.problems:
                yield f"there is a target for '{problem}', which is none of the race's problems"


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and value > 0
