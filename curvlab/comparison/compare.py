"""`curvlab.compare`: directions beside a baseline's, and training races, of any optimizers on a problem or a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from curvlab.analyses.environment import environment
from curvlab.comparison.directions import directions
from curvlab.comparison.optimizer_specs import specs
from curvlab.comparison.request import Request
from curvlab.comparison.results import Comparison
from curvlab.comparison.sources import Source, What, source_of
from curvlab.comparison.trajectory import Report
from curvlab.comparison.workload import of_model, of_problem
from curvlab.device import pick_device
from curvlab.errors import MemoryBudgetError

if TYPE_CHECKING:
    from curvlab.comparison.race_results import Races
    from curvlab.comparison.race_settings import RaceSettings

OPTIMIZERS = ("lnb", "kfac", "tnt", "shampoo", "adam", "sgd")


def compare(
    what: What = None,
    optimizers: Sequence[str] = OPTIMIZERS,
    *,
    request: Request | None = None,
    report: Report = lambda stage, done, total: None,
    command: tuple[str, ...] = (),
    **options: Any,
) -> Comparison:
    """Optimizers beside each other: their directions on the same batches, their training runs from the same weights.

    mode="directions": on a problem the baseline, by default the exact block Fisher, trains the network, and at each of
    its steps all say where they would go from there (Ren 2022, section 4.3.4, Figure 4.1); on a saved model the weights
    stay, and statistics are averaged over one pass of the data. mode="training": races, each run in a process of its
    own.

    A network of one's own is raced on, and trained by the baseline, like a problem: `compare(architecture="mine:build",
    data="photos.npz")`; or `compare(model, data=(x, y), mode="training")`, where all begin with the weights it has.

    Args:
        what: a problem's name (for races several); or a saved model's path, a Checkpoint, or a network. Without, the
            `architecture` among the options, or else the problem digits-mlp.
        optimizers: names, or "label=name" for one with settings of its own.
        request: all choices in one value; `options` are its fields, and those of its `data_options`, by name:
            `compare("digits-mlp", ["lnb", "kfac"], steps=50, seed=1, settings={"kfac": {"damping": 0.03}})`.
        report: told (stage, done, total).
        command: the command line, for the result.

    Raises:
        CurvlabError: an optimizer, a setting or a layer that does not exist, data or network that cannot be used, or a
            baseline that left the finite numbers.
    """
    asked = (request or Request()).asked(options)
    source = source_of(what, asked)
    # What is wrong with either is said before the work of both; races, which take longest, come last.
    races = None if asked.mode == "directions" else _race_settings(source, optimizers, asked)
    if asked.mode == "training":
        found = _without_directions(source, asked)
    else:
        found = _directions(source, optimizers, asked, report)
    return replace(found, training=None if races is None else _races(races, report), command=command)


def _directions(source: Source, optimizers: Sequence[str], asked: Request, report: Report) -> Comparison:
    *others, last = asked.baselines
    refused: MemoryBudgetError | None = None
    for name in others:
        try:
            return _beside(name, source, optimizers, asked, report)
        except MemoryBudgetError as error:
            refused = error
    found = _beside(last, source, optimizers, asked, report)
    note = f"{last} is the baseline: {refused.found}, and {refused.why}" if refused is not None else None
    return replace(found, notes=(*found.notes, note)) if note else found


def _beside(baseline: str, source: Source, optimizers: Sequence[str], asked: Request, report: Report) -> Comparison:
    """Directions beside those of one baseline."""
    asked, options = replace(asked, baseline=baseline), asked.data_options
    device = pick_device(options.device)
    # Dropout is then the same in every comparison with this seed.
    with torch.random.fork_rng([torch.cuda.current_device()] if device.type == "cuda" else []):
        torch.manual_seed(options.seed)
        moving = source.directions
        workload = of_model(source.model, options) if moving is None else of_problem(moving, options)  # type: ignore[arg-type]
        return directions(workload, optimizers, asked, report)


def _race_settings(source: Source, optimizers: Sequence[str], asked: Request) -> RaceSettings:
    from curvlab.comparison.race_settings import RaceSettings

    # The baseline of directions may have settings; a race by itself has none.
    also = asked.baselines if asked.mode == "both" else ()
    found, options = specs(optimizers, asked.settings, also), asked.data_options
    return RaceSettings(
        optimizers={one.label: {"optimizer": one.optimizer, **one.settings} for one in found},
        seeds=asked.seeds or (options.seed,),
        epochs=asked.epochs,
        steps=asked.steps if asked.mode == "training" else None,
        seconds=asked.seconds,
        target=asked.target,
        device=options.device,
        dtype=options.dtype,
        max_memory=options.max_memory,
        **source.races(asked),
    )


def _races(settings: RaceSettings, report: Report) -> Races:
    from curvlab.comparison.race import race

    return race(settings, report)


def _without_directions(source: Source, asked: Request) -> Comparison:
    return Comparison(
        problem=source.name or "module",
        baseline=None,
        steps=0,
        measured=(),
        optimizers={},
        reference=None,
        seed=asked.data_options.seed,
        hashes={},
        data={},
        environment=environment(pick_device(asked.data_options.device)),
    )
