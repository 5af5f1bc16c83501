"""RaceSettings: who runs, on what and how far, as one frozen value; everything wrong with it is said at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from types import MappingProxyType
from typing import Annotated, Any

from curvlab.conditions import Device, DtypeName, LossName, MaxMemory, Threads
from curvlab.field_types import FROM_ONE, POSITIVE, SEED
from curvlab.fields import Declared, Setting
from curvlab.training.own_network import OwnNetwork
from curvlab.training.settings import TrainingSettings, wrong

ENDLESS = 10**9
"""Steps of a run whose budget is of seconds."""
BUDGETS = ("epochs", "steps", "seconds")


@dataclass(frozen=True)
class RaceSettings(Declared):
    """Races between optimizers; all have the same network, data, seed and budget.

    Raises:
        CommandError: naming everything that is wrong.
    """

    problems: Annotated[tuple[str, ...], Setting("Names of `curvlab list problems`; each is a race of its own.")]
    optimizers: Annotated[
        Mapping[str, Mapping[str, Any]],
        Setting(
            "Label -> {optimizer: name, setting: value, ...}; without optimizer the label is the name. What is not set "
            "comes from the problem's recommendation, then from the optimizer's defaults, as in training."
        ),
    ]
    seeds: Annotated[
        tuple[int, ...],
        Setting("Seeds of weights, held-out examples, order of the data and draws; all run with each.", SEED),
    ] = (0,)
    epochs: Annotated[int | None, Setting("The budget as passes over the training set.", FROM_ONE)] = None
    steps: Annotated[int | None, Setting("Or as steps.", FROM_ONE)] = None
    seconds: Annotated[
        float | None,
        Setting(
            "Or as training seconds, warm start included, evaluation excluded. A step that began before the end is "
            "completed. With none of the three it is the problem's number of epochs.",
            POSITIVE,
        ),
    ] = None
    target: Annotated[
        str | Mapping[str, str] | None,
        Setting("A comparison over an evaluation, for all problems or by problem; no run stops at it."),
    ] = None
    architecture: Annotated[
        str | None, Setting("A network of your own, in place of problems: `package.module:callable`.")
    ] = None
    data: Annotated[str | None, Setting("In place of a problem's own, for one problem; of an architecture.")] = None
    loss: Annotated[LossName, Setting("Loss of an architecture.")] = "auto"
    device: Device = "auto"
    dtype: DtypeName = "float32"
    threads: Threads = None
    max_memory: MaxMemory = None
    fresh_process: Annotated[
        bool,
        Setting(
            "Run each in a process of its own, so that its peak memory is its own; problems, optimizers and networks "
            "that only this process knows need false."
        ),
    ] = True
    own: Annotated[
        OwnNetwork | None,
        Setting("A network and examples in memory, in place of problems; fresh_process is false then."),
    ] = None

    def __post_init__(self) -> None:
        for name in ("problems", "seeds"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.own is not None:
            object.__setattr__(self, "fresh_process", False)
        frozen = {label: MappingProxyType(dict(entry)) for label, entry in self.optimizers.items()}
        object.__setattr__(self, "optimizers", MappingProxyType(frozen))
        super().__post_init__()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the problems, or of the one network."""
        own = self.architecture if self.own is None else self.own.name
        return self.problems if own is None else (own,)

    @property
    def budget(self) -> dict[str, float] | None:
        """{"epochs" | "steps" | "seconds": number}; None: every problem's own number of epochs."""
        return next(({name: getattr(self, name)} for name in BUDGETS if getattr(self, name) is not None), None)

    def training(self, name: str, label: str, seed: int) -> TrainingSettings:
        """The settings of one run.

        Raises:
            CommandError: they are wrong.
        """
        return TrainingSettings(**_run(vars(self), name, label, seed))

    @classmethod
    def wrong_together(cls, sound: Mapping[str, Any], given: Collection[str]) -> Iterator[str]:
        """See `Declared`."""
        architecture = sound.get("architecture") or getattr(sound.get("own"), "name", None)
        names = (*sound.get("problems", ()), *((architecture,) if architecture else ()))
        listed = {"problem": names, "optimizer": sound.get("optimizers", {}), "seed": sound.get("seeds", (0,))}
        for name, values in listed.items():
            if not values:
                yield f"a race needs at least one {name}"
            if len(set(values)) < len(tuple(values)):
                yield f"a {name} is given twice: {', '.join(map(str, values))}"
        if architecture and sound.get("problems"):
            yield "a race is on problems or on a network of your own, not both"
        budgets = [name for name in BUDGETS if name in given]
        if len(budgets) > 1:
            yield f"a race has one budget, not {' and '.join(budgets)}"
        if "data" in given and len(names) > 1:
            yield "data belongs to one problem"
        target = sound.get("target")
        for problem in target if isinstance(target, Mapping) else ():
            if problem not in names:
                yield f"there is a target for '{problem}', which is none of the race's problems"
        for name, label, seed in product(names, sound.get("optimizers", {}), sound.get("seeds", (0,))):
            yield from wrong(_run(sound, name, label, seed))


def _run(values: Mapping[str, Any], name: str, label: str, seed: int) -> dict[str, Any]:
    """TrainingSettings of one run by name, from those of the race."""
    settings, own = dict(values["optimizers"][label]), values.get("own")
    target = values.get("target")
    place: dict[str, Any] = {"problem": name, "data": values.get("data")}
    if values.get("architecture"):
        place = {"architecture": name, "data": values.get("data"), "loss": values.get("loss", "auto")}
    elif own is not None:
        data = own.data if isinstance(own.data, str) else own.data.source
        place = {"architecture": name, "data": data, "loss": own.loss}
    return {
        "optimizer": settings.pop("optimizer", label),
        "settings": settings,
        "epochs": values.get("epochs"),
        "steps": ENDLESS if values.get("seconds") is not None else values.get("steps"),
        "seed": seed,
        "target": target.get(name) if isinstance(target, Mapping) else target,
        **{key: values.get(key) for key in ("threads", "max_memory")},
        **{key: values[key] for key in ("device", "dtype") if key in values},
        **place,
    }
