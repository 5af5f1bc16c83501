"""Request: everything that `compare` can be asked for beyond the subject and the optimizers, as one frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any, Literal, get_args

from curvlab.comparison.reference import EXACT
from curvlab.comparison.subject import Sampling
from curvlab.errors import CommandError
from curvlab.optim.catalogue import catalogue

Mode = Literal["directions", "training", "both"]
BASELINE = "block-fisher"
STEPS = 100


@dataclass(frozen=True)
class Request:
    """The choices of a comparison; the defaults are those of `curvlab compare`.

    Attributes:
        mode: "directions", "training" or "both".
        baseline: an optimizer's name, "ggn" or "hessian".
        settings: label -> setting -> value; the baseline's are under its own name.
        steps: batches of a trajectory; of a race, where it is given for one.
        warm_start: begin a trajectory with a pass over the training set for everyone's averages, where they have one.
        interval: T2 of all that have one: steps between renewals of their operators.
        dampings: values of a sweep; none without.
        layers: globs over layers; all without.
        seeds: of races; the first is that of the directions.
        epochs: of a race; the problem's without.
        seconds: of a race, training seconds.
        target: of a race, such as 'train.loss<0.3'.
        sampling: data, seed, device.

    Raises:
        CommandError: a value that cannot be.
    """

    mode: Mode = "directions"
    baseline: str = BASELINE
    settings: Mapping[str, Mapping[str, Any]] | None = None
    steps: int | None = None
    warm_start: bool = True
    interval: int = 5
    dampings: tuple[float, ...] = ()
    layers: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    epochs: int | None = None
    seconds: float | None = None
    target: str | None = None
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise CommandError(f"mode is {self.mode!r}, not one of {', '.join(get_args(Mode))}")
        for name in ("steps", "interval", "epochs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise CommandError(f"{name} is {value}, not a whole number above 0")
        if wrong := [value for value in self.dampings if not (isfinite(value) and value > 0)]:
            raise CommandError(f"a damping is {wrong[0]}, not a number above 0")
        if self.baseline not in {*catalogue(), *EXACT}:
            there = ", ".join([*catalogue(), *EXACT])
            raise CommandError(f"there is no baseline '{self.baseline}'", do=f"there are {there}")
        if self.mode == "directions":
            for name in ("epochs", "seconds", "target"):
                if getattr(self, name) is not None:
                    raise CommandError(f"{name} belongs to a race", do="add --mode training or --mode both")
            if len(self.seeds) > 1:
                raise CommandError("directions are of one seed at a time", f"{len(self.seeds)} are given")
        if self.mode == "training":
            for name in ("dampings", "layers"):
                if getattr(self, name):
                    raise CommandError(f"{name} is about directions", do="add --mode directions or --mode both")
            for name in ("samples", "batch_size"):
                if getattr(self.sampling, name) is not None:
                    raise CommandError(f"{name} is about directions", do="add --mode directions or --mode both")

    def asked(self, options: Mapping[str, Any]) -> Request:
        """With other choices by name, those of `sampling` among them.

        Raises:
            CommandError: there is no such choice.
        """
        inner = {name: value for name, value in options.items() if name in Sampling.__dataclass_fields__}
        outer = {name: value for name, value in options.items() if name not in inner}
        known = [name for name in Request.__dataclass_fields__ if name != "sampling"]
        if unknown := sorted(set(outer) - set(known)):
            there = ", ".join([*known, *Sampling.__dataclass_fields__])
            raise CommandError(f"compare has no option '{unknown[0]}'", do=f"there are {there}")
        for name, kind in (("dampings", float), ("layers", str), ("seeds", int)):
            if name in outer:
                outer[name] = tuple(map(kind, outer[name]))
        if outer.get("seeds") and "seed" not in inner:
            inner["seed"] = outer["seeds"][0]
        return replace(self, **outer, sampling=replace(self.sampling, **inner))
