"""Request: everything that `compare` can be asked for beyond the workload and the optimizers, as one frozen value."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from curvlab.comparison.data_options import DataOptions
from curvlab.conditions import Globs
from curvlab.errors import CommandError
from curvlab.field_types import FROM_ONE, POSITIVE, SEED
from curvlab.fields import Declared, Field, Setting, fields_of, unknown

Mode = Literal["directions", "training", "both"]
BASELINE, FALLBACK = "block-fisher", "ekfac"
"""Baselines where none is asked for: the second where the exact blocks of the first do not fit the memory."""
EXACT = ("ggn", "hessian")
"""Baselines that are a matrix and no optimizer."""
STEPS = 100
INTERVAL = 5
OF_DIRECTIONS = {"mode": ("directions", "both")}
OF_RACES = {"mode": ("training", "both")}


@dataclass(frozen=True)
class Request(Declared):
    """The choices of a comparison; the defaults are those of `curvlab compare`.

    Raises:
        CommandError: a value that cannot be, or that has no effect beside the others.
    """

    mode: Annotated[Mode, Setting("directions, training, or both.", written="MODE")] = "directions"
    baseline: Annotated[
        str | None,
        Setting(
            f"An optimizer, or for small networks ggn or hessian (exact). Without, {BASELINE} where its blocks fit the "
            f"memory, else {FALLBACK}.",
            when=OF_DIRECTIONS,
            written="NAME",
        ),
    ] = None
    settings: Annotated[
        Mapping[str, Mapping[str, Any]] | None,
        Setting("Label -> setting -> value; the baseline's are under its own name."),
    ] = None
    steps: Annotated[
        int | None, Setting(f"Steps of the trajectory, default {STEPS}; with mode training, of the race.", FROM_ONE)
    ] = None
    warm_start: Annotated[
        bool, Setting("Begin with a pass over the training set for all averages.", when=OF_DIRECTIONS)
    ] = True
    interval: Annotated[
        int,
        Setting("T2 of all that have one: steps between renewals of their operators.", FROM_ONE, when=OF_DIRECTIONS),
    ] = INTERVAL
    dampings: Annotated[
        tuple[float, ...],
        Setting("Try N values of every damping, evenly spaced by ratio.", POSITIVE, OF_DIRECTIONS, written="FROM:TO:N"),
    ] = ()
    layers: Annotated[Globs, Setting(when=OF_DIRECTIONS)] = ()
    seeds: Annotated[
        tuple[int, ...], Setting("Seeds of the runs; the first is that of the directions.", SEED, written="N,N")
    ] = ()
    epochs: Annotated[int | None, Setting("Budget of a race; the problem's without.", FROM_ONE, OF_RACES)] = None
    seconds: Annotated[float | None, Setting("Budget of training seconds, in place of epochs.", POSITIVE, OF_RACES)] = (
        None
    )
    target: Annotated[str | None, Setting("Time until it holds: 'train.loss<0.3'.", when=OF_RACES, written="EXPR")] = (
        None
    )
    architecture: Annotated[
        str | None,
        Setting(
            "A network of your own, with its data: `package.module:callable`. Beside a MODEL: what runs it.",
            written="SPEC",
        ),
    ] = None
    data_options: DataOptions = field(default_factory=DataOptions)

    @classmethod
    def wrong_together(cls, sound: Mapping[str, Any], given: Collection[str]) -> Iterator[str]:
        """See `Declared`."""
        from curvlab.optim.registry import OPTIMIZERS

        baseline, mode = sound.get("baseline") or BASELINE, sound.get("mode", "directions")
        if baseline not in {*OPTIMIZERS, *EXACT}:
            yield f"there is no baseline '{baseline}', {unknown([*OPTIMIZERS, *EXACT], baseline)}"
        if mode == "directions" and len(sound.get("seeds", ())) > 1:
            yield f"directions are of one seed at a time, {len(sound['seeds'])} are given"
        options = sound.get("data_options", DataOptions())
        for name in ("samples", "batch_size"):
            if mode == "training" and getattr(options, name) is not None:
                yield f"{name} is {getattr(options, name)}, which has an effect with mode=directions or mode=both only"
        if ":" not in sound.get("architecture", ":"):
            yield f"architecture is {sound['architecture']!r}, not package.module:callable"
        if "architecture" in sound and options.data is None:
            yield "an architecture needs data (--data)"

    @property
    def baselines(self) -> tuple[str, ...]:
        """The baselines to try, the best first; one that settings speak of is asked for."""
        if self.baseline is not None:
            return (self.baseline,)
        return (BASELINE,) if BASELINE in (self.settings or {}) else (BASELINE, FALLBACK)

    def asked(self, options: Mapping[str, Any]) -> Request:
        """With other choices by name, those of `data_options` among them.

        Raises:
            CommandError: there is no such choice.
        """
        known = choices()
        for name in options:
            if name not in known:
                raise CommandError(f"compare has no option '{name}'", do=unknown(known, name))
        inner = {name: value for name, value in options.items() if name in fields_of(DataOptions)}
        outer = {name: value for name, value in options.items() if name not in inner}
        if outer.get("seeds") and "seed" not in inner:
            inner["seed"] = outer["seeds"][0]
        return replace(self, **outer, data_options=replace(self.data_options, **inner))


def choices() -> dict[str, Field]:
    """All there are by name: of a Request, and of its DataOptions."""
    own = {name: one for name, one in fields_of(Request).items() if name != "data_options"}
    return {**own, **fields_of(DataOptions)}
