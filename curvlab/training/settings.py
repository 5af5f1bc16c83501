"""TrainingSettings: every choice of a training run as one frozen value; everything wrong is said at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from curvlab.conditions import Device, DtypeName, LossName, MaxMemory, Seed, Threads
from curvlab.errors import CommandError, CurvlabError
from curvlab.field_types import FROM_ONE, POSITIVE
from curvlab.fields import Declared, Setting, fields_of, tupled, unknown
from curvlab.training.schedule import schedule_problem

DEFAULT_PROBLEM = "digits-mlp"
NO_OPTIMIZER = "no optimizer is given (--optimizer; `curvlab list optimizers` has them)"


@dataclass(frozen=True)
class TrainingSettings(Declared):
    """How a network is trained; the defaults are those of `curvlab train`.

    Raises:
        CommandError: naming everything that is wrong.
    """

    optimizer: Annotated[str, Setting("One of `curvlab list optimizers`.", written="NAME")]
    problem: Annotated[
        str | None,
        Setting(f"One of `curvlab list problems`; {DEFAULT_PROBLEM} when nothing is said.", written="NAME"),
    ] = None
    architecture: Annotated[
        str | None,
        Setting(
            "A network of your own, in place of a problem: `package.module:callable`, or a saved one, to go on from.",
            written="SPEC",
        ),
    ] = None
    data: Annotated[
        str | None,
        Setting("A name of `curvlab list datasets` or a path; replaces a problem's data.", written="SPEC"),
    ] = None
    loss: Annotated[
        LossName,
        Setting(
            "Loss of an architecture: cross-entropy, bce, mse, next-token (tokens are their own targets), or auto, "
            "which decides by the targets and the kind of network."
        ),
    ] = "auto"
    settings: Annotated[
        Mapping[str, Any],
        Setting("The optimizer's; the others come from the problem's recommendation, then from the optimizer."),
    ] = field(default_factory=dict)
    epochs: Annotated[
        int | None,
        Setting("Passes over the training set; the problem's number without, unless steps is given.", FROM_ONE),
    ] = None
    steps: Annotated[int | None, Setting("Steps, in place of epochs.", FROM_ONE)] = None
    batch_size: Annotated[int | None, Setting("Examples per step; the problem's number without.", FROM_ONE)] = None
    seed: Annotated[Seed, Setting("Seed of weights, order of the data, held-out part and draws.")] = 0
    device: Device = "auto"
    dtype: Annotated[DtypeName, Setting("Type of weights and data.")] = "float32"
    threads: Threads = None
    schedule: Annotated[
        str,
        Setting(
            "Learning rate over time: constant, cosine, linear, step:EPOCHS:FACTOR.",
            check=schedule_problem,
            written="NAME",
        ),
    ] = "constant"
    warm_start: Annotated[
        bool, Setting("Begin with a pass for the statistics, where the optimizer has one (it does by default).")
    ] = True
    target: Annotated[
        str | None, Setting("A comparison over an evaluation; the run stops when it holds.", written="EXPR")
    ] = None
    fail_if: Annotated[
        tuple[str, ...],
        Setting("Exit with 3 when this holds of the summary; may be repeated.", written="EXPR"),
    ] = ()
    max_seconds: Annotated[
        float | None, Setting("Stop this much time after it was started or resumed, ready to be resumed.", POSITIVE)
    ] = None
    max_memory: Annotated[MaxMemory, Setting("Most bytes that the examples may take, such as `8GiB`.")] = None
    out: Annotated[str | None, Setting("Folder for the results; runs/PROBLEM-OPTIMIZER without.", written="DIR")] = None
    log_every: Annotated[int | None, Setting("A line of metrics every so many steps, too.", FROM_ONE)] = None
    save_every: Annotated[int | None, Setting("Save the state every so many steps, too.", FROM_ONE)] = None
    snapshots: Annotated[int | None, Setting("Keep the model every so many epochs.", FROM_ONE)] = None
    save_factors: Annotated[bool, Setting("Write the averaged curvature factors.")] = False

    def __post_init__(self) -> None:
        if self.problem is None and self.architecture is None:
            object.__setattr__(self, "problem", DEFAULT_PROBLEM)
        super().__post_init__()
        object.__setattr__(self, "settings", tupled(self.settings))

    @classmethod
    def wrong_together(cls, sound: Mapping[str, Any], given: Collection[str]) -> Iterator[str]:
        """See `Declared`."""
        yield from _wrong_task(sound, given)
        yield from _wrong_expressions(sound)
        if "optimizer" in sound:
            yield from _wrong_optimizer(sound["optimizer"], sound)

    @property
    def folder(self) -> str:
        """Where the results go."""
        subject = self.problem or (self.architecture or "").replace(":", ".").replace("/", ".").strip(".")
        return self.out or f"runs/{subject}-{self.optimizer}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values by name."""
        return {**super().to_dict(), "fail_if": self.fail_if}


NAMES = tuple(fields_of(TrainingSettings))


def wrong(values: Mapping[str, Any]) -> list[str]:
    """A sentence for everything that is wrong with values by name; None stands for "not given"."""
    given = {name: value for name, value in values.items() if value is not None}
    found = [unknown_option(name) for name in given if name not in NAMES]
    found += [] if "optimizer" in given else [NO_OPTIMIZER]
    return [*found, *TrainingSettings.wrong({name: value for name, value in given.items() if name in NAMES})]


def unknown_option(name: str) -> str:
    """The sentence about a name that is none of `NAMES`."""
    from curvlab.optim.catalogue import catalogue

    if any(name in entry.settings for entry in catalogue().values()):
        return f"'{name}' is a setting of the optimizer, put it into the table [set]"
    said = unknown(NAMES, name)
    return f"there is no option '{name}'" + (f", {said}" if said.startswith("did") else "")


def _wrong_task(sound: Mapping[str, Any], given: Collection[str]) -> Iterator[str]:
    if "problem" in given and "architecture" in given:
        yield "a run has a problem or an architecture, not both"
    if "architecture" in given and "data" not in given:
        yield "an architecture needs data to train on (--data)"
    if ":" not in (named := sound.get("architecture", ":")) and not Path(named).exists():
        yield f"architecture is {named!r}, neither package.module:callable nor a saved network"
    if "architecture" not in given and sound.get("loss", "auto") != "auto":
        yield "loss belongs to an architecture: a problem has its own"
    if "epochs" in given and "steps" in given:
        yield "a run has a number of epochs or of steps, not both"


def _wrong_expressions(sound: Mapping[str, Any]) -> Iterator[str]:
    """About target and gates; the metrics of an architecture are known when its data is."""
    from curvlab.problems.registry import problem
    from curvlab.training.entry import entry_shape
    from curvlab.training.summary_gate import summary_shape
    from curvlab.training.target import parse_target

    metrics: tuple[str, ...] | None = None
    if "problem" in sound:
        try:
            metrics = tuple(problem(sound["problem"]).metrics)
        except CurvlabError as error:
            yield str(error)
    targets = [("target", text, entry_shape) for text in (sound.get("target"),) if text]
    for kind, text, shape in [*targets, *(("gate", text, summary_shape) for text in sound.get("fail_if", ()))]:
        try:
            expression = parse_target(text, kind)
        except CommandError as error:
            yield str(error)
        else:
            yield from expression.missing(shape(metrics)) if metrics is not None else ()


def _wrong_optimizer(name: str, sound: Mapping[str, Any]) -> Iterator[str]:
    from curvlab.optim.catalogue import catalogue, wrong_settings
    from curvlab.optim.registry import OPTIMIZERS

    if name not in OPTIMIZERS:
        yield f"there is no optimizer '{name}', {OPTIMIZERS.instead(name)}"
        return
    settings = sound.get("settings", {})
    yield from wrong_settings(name, settings)
    if settings.get("step_size") == "mvp" and sound.get("schedule", "constant") != "constant":
        yield f"step_size=mvp chooses the rate of every step: schedule '{sound['schedule']}' would change nothing"
    if sound.get("save_factors") and not catalogue()[name].has_factors:
        yield f"{name} keeps no factors that save_factors could write"
