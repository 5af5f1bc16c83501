"""TrainingSettings: every choice of a training run as one frozen value; everything wrong is said at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from math import isfinite
from typing import Any, Literal, get_args

from curvlab.errors import CommandError, CurvlabError

Loss = Literal["auto", "cross-entropy", "bce", "mse"]
Dtype = Literal["float32", "float64"]
DeviceName = Literal["auto", "cpu", "cuda", "mps"]

DEFAULT_PROBLEM = "digits-mlp"
_WORDS = ("problem", "architecture", "data", "loss", "optimizer", "device", "dtype", "schedule", "target", "out")
_COUNTS = ("epochs", "steps", "batch_size", "threads", "max_memory", "log_every", "save_every", "snapshots")
_TRUTHS = ("warm_start", "save_factors")
_SEED_LIMIT = 2**63
MOST = 2**53
"""Of all that is counted: no run comes near, and as a float it is still exact."""
MOST_THREADS = 1024
"""torch would start as many as it is told to, and end the process where the system has no more."""
MANY = 30
"""So many mistakes are told at once."""
NO_OPTIMIZER = "no optimizer is given (--optimizer; `curvlab list optimizers` has them)"


@dataclass(frozen=True)
class TrainingSettings:
    """How a network is trained; the defaults are those of `curvlab train`.

    Attributes:
        optimizer: its name.
        problem: name of a problem; None when `architecture` is given, else `digits-mlp`.
        architecture: "package.module:callable", in place of a problem.
        data: name or path; of a problem it replaces the data.
        loss: of an architecture: "cross-entropy", "bce", "mse", or "auto": what the targets look like.
        settings: the optimizer's; what is not in it comes from the problem's recommendation, then from the class.
        epochs: passes over the training set; None: the problem's, unless `steps` is given.
        steps: number of steps, in place of `epochs`.
        batch_size: examples per step; None: the problem's.
        seed: of weights, held-out examples, order of the data and everything drawn.
        device: "auto", or a torch device name such as "cpu", "cuda:1", "mps".
        dtype: of weights and data.
        threads: of the processor; None leaves torch's choice.
        schedule: "constant", "cosine", "linear" or "step:EPOCHS:FACTOR".
        warm_start: begin with a pass for the statistics, where the optimizer has one.
        target: a comparison over an evaluation; the run ends when it holds.
        fail_if: expressions over the summary; where one holds at the end, the command line fails.
        max_seconds: the run stops when this much time has passed since it was started or resumed.
        max_memory: bytes that the examples may take; None: the machine's memory.
        out: folder for the results; None: runs/PROBLEM-OPTIMIZER.
        log_every: also log every so many steps.
        save_every: also save the state every so many steps, not only after each epoch.
        snapshots: keep the model after every so many epochs.
        save_factors: write the averaged statistics too.

    Raises:
        CommandError: naming everything that is wrong.
    """

    optimizer: str
    problem: str | None = None
    architecture: str | None = None
    data: str | None = None
    loss: str = "auto"
    settings: Mapping[str, Any] = field(default_factory=dict)
    epochs: int | None = None
    steps: int | None = None
    batch_size: int | None = None
    seed: int = 0
    device: str = "auto"
    dtype: str = "float32"
    threads: int | None = None
    schedule: str = "constant"
    warm_start: bool = True
    target: str | None = None
    fail_if: tuple[str, ...] = ()
    max_seconds: float | None = None
    max_memory: int | None = None
    out: str | None = None
    log_every: int | None = None
    save_every: int | None = None
    snapshots: int | None = None
    save_factors: bool = False

    def __post_init__(self) -> None:
        if self.problem is None and self.architecture is None:
            object.__setattr__(self, "problem", DEFAULT_PROBLEM)
        if found := wrong(self.to_dict()):
            raise refusal(found)
        object.__setattr__(self, "fail_if", tuple(self.fail_if))

    @property
    def folder(self) -> str:
        """Where the results go."""
        subject = self.problem or (self.architecture or "").replace(":", ".").replace("/", ".")
        return self.out or f"runs/{subject}-{self.optimizer}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values by name."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {**values, "settings": dict(self.settings)}


NAMES = tuple(entry.name for entry in fields(TrainingSettings))


def wrong(values: Mapping[str, Any]) -> list[str]:
    """A sentence for everything that is wrong with values by name; None stands for "not given"."""
    given = {name: value for name, value in values.items() if value is not None}
    found = [sentence for name, value in given.items() if (sentence := _wrong_type(name, value))]
    sound = {name: value for name, value in given.items() if not _wrong_type(name, value)}
    return [*found, *_wrong_choices(sound), *_wrong_together(given, sound), *_wrong_optimizer(given, sound)]


def refusal(found: Sequence[str]) -> CommandError:
    """One error for all that is wrong."""
    if len(found) == 1:
        return CommandError(found[0])
    listed = "; ".join(f"({place}) {sentence}" for place, sentence in enumerate(found[:MANY], start=1))
    listed += f"; and {len(found) - MANY} more" if len(found) > MANY else ""
    return CommandError(f"{len(found)} things are wrong", listed)


def unknown(name: str) -> str:
    """The sentence about a name that is none of `NAMES`."""
    from curvlab.optim.catalogue import catalogue

    if any(name in entry.settings for entry in catalogue().values()):
        return f"'{name}' is a setting of the optimizer, put it into the table [set]"
    close = difflib.get_close_matches(name, NAMES, n=1)
    return f"there is no option '{name}'" + (f", did you mean '{close[0]}'" if close else "")


def _wrong_type(name: str, value: Any) -> str | None:
    if name in _WORDS:
        return None if isinstance(value, str) and value else f"{name} is {value!r}, not a word"
    if name in _COUNTS:
        most = MOST_THREADS if name == "threads" else MOST
        sound = _is_whole(value) and 1 <= value <= most
        return (
            None
            if sound
            else f"{name} is {value!r}, not a whole number above 0"
            + (f", at most {most}" if _is_whole(value) and value > 0 else "")
        )
    if name in _TRUTHS:
        return None if isinstance(value, bool) else f"{name} is {value!r}, not true or false"
    if name == "seed":
        sound = _is_whole(value) and 0 <= value < _SEED_LIMIT
        return None if sound else f"seed is {value!r}, not a whole number from 0 to 2^63 - 1"
    if name == "max_seconds":
        number = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and value > 0
        return None if number else f"max_seconds is {value!r}, not a number above 0"
    if name == "fail_if":
        texts = isinstance(value, list | tuple) and all(isinstance(one, str) and one for one in value)
        return None if texts else f"fail_if is {value!r}, not a list of expressions"
    if name == "settings":
        return None if isinstance(value, Mapping) else f"settings is {value!r}, not a table of names and values"
    return unknown(name)


def _wrong_choices(sound: Mapping[str, Any]) -> Iterator[str]:
    for name, choices in (("loss", get_args(Loss)), ("dtype", get_args(Dtype))):
        if name in sound and sound[name] not in choices:
            yield f"{name} is {sound[name]!r}, not one of {', '.join(choices)}"
    family, _, index = sound.get("device", "auto").partition(":")
    numbered = ":" in sound.get("device", "")
    if family not in get_args(DeviceName) or (numbered and not re.fullmatch("[0-9]{1,3}", index)):
        yield f"device is {sound['device']!r}, not one of {', '.join(get_args(DeviceName))} (or cuda:1)"
    if "schedule" in sound:
        from curvlab.training.schedule import parse_schedule

        yield from _refusal(lambda: parse_schedule(sound["schedule"]))


def _wrong_together(given: Mapping[str, Any], sound: Mapping[str, Any]) -> Iterator[str]:
    if "problem" in given and "architecture" in given:
        yield "a run has a problem or an architecture, not both"
    if "architecture" in given and "data" not in given:
        yield "an architecture needs data to train on (--data)"
    if "architecture" in sound and ":" not in sound["architecture"]:
        yield f"architecture is {sound['architecture']!r}, not package.module:callable"
    if "architecture" not in given and sound.get("loss", "auto") != "auto":
        yield "loss belongs to an architecture: a problem has its own"
    if "epochs" in given and "steps" in given:
        yield "a run has a number of epochs or of steps, not both"
    if sound.get("settings", {}).get("step_size") == "mvp" and sound.get("schedule", "constant") != "constant":
        yield f"step_size=mvp chooses the rate of every step: schedule '{sound['schedule']}' would change nothing"
    metrics: tuple[str, ...] | None = None
    if "problem" in sound:
        from curvlab.problems.registry import problem

        try:
            metrics = tuple(problem(sound["problem"]).metrics)
        except CurvlabError as error:
            yield str(error)
    yield from _wrong_expressions(sound, metrics)


def _wrong_expressions(sound: Mapping[str, Any], metrics: tuple[str, ...] | None) -> Iterator[str]:
    """About target and gates; the metrics of an architecture are known, and not None, when its data is."""
    from curvlab.training.entry import entry_shape
    from curvlab.training.summary_gate import summary_shape
    from curvlab.training.target import parse_target

    targets = [("target", text, entry_shape) for text in (sound.get("target"),) if text]
    for kind, text, shape in [*targets, *(("gate", text, summary_shape) for text in sound.get("fail_if", ()))]:
        try:
            expression = parse_target(text, kind)
        except CommandError as error:
            yield str(error)
        else:
            yield from expression.missing(shape(metrics)) if metrics is not None else ()


def _wrong_optimizer(given: Mapping[str, Any], sound: Mapping[str, Any]) -> Iterator[str]:
    if "optimizer" not in given:
        yield NO_OPTIMIZER
        return
    if "optimizer" not in sound:
        return
    import torch

    from curvlab.optim.catalogue import catalogue, wrong_settings

    name = sound["optimizer"]
    if name not in catalogue():
        close = difflib.get_close_matches(name, catalogue(), n=1)
        yield f"there is no optimizer '{name}', " + (
            f"did you mean '{close[0]}'" if close else f"use one of {', '.join(catalogue())}"
        )
        return
    with torch.random.fork_rng(devices=[]):  # the small networks of these trials draw weights
        found = wrong_settings(name, sound.get("settings", {})) or [*_wrong_joined(name, sound)]
    yield from found
    if sound.get("save_factors") and not catalogue()[name].has_factors:
        yield f"{name} keeps no factors that save_factors could write"


def _wrong_joined(name: str, sound: Mapping[str, Any]) -> Iterator[str]:
    """Settings each of which is right, but not beside the others or what the problem recommends."""
    from torch import nn

    from curvlab.optim import create
    from curvlab.problems.registry import names, problem

    known = problem(sound["problem"]).settings if sound.get("problem") in names() else {}
    settings = {**known.get(name, {}), **sound.get("settings", {})}
    yield from _refusal(lambda: create(name, nn.Linear(1, 1), likelihood="categorical", **settings))


def _refusal(attempt: Callable[[], object]) -> Iterator[str]:
    try:
        attempt()
    except CurvlabError as error:
        yield str(error)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
