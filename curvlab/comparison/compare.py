"""`curvlab.compare`: directions beside a baseline's, and training races, of any optimizers on a problem or a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from curvlab.analyses.environment import environment
from curvlab.analyses.job import Model
from curvlab.comparison.contestants import contestants
from curvlab.comparison.directions import directions
from curvlab.comparison.request import Request
from curvlab.comparison.results import Comparison
from curvlab.comparison.subject import of_model, of_problem
from curvlab.comparison.trajectory import Report
from curvlab.device import pick_device
from curvlab.errors import CommandError
from curvlab.problems import registry

if TYPE_CHECKING:
    from curvlab.comparison.race_results import Races
    from curvlab.comparison.race_settings import RaceSettings

PROBLEM = "digits-mlp"
OPTIMIZERS = ("lnb", "kfac", "tnt", "shampoo", "adam", "sgd")


def compare(
    what: str | Model | Sequence[str] = PROBLEM,
    optimizers: Sequence[str] = OPTIMIZERS,
    *,
    request: Request | None = None,
    report: Report = lambda stage, done, total: None,
    command: tuple[str, ...] = (),
    **options: Any,
) -> Comparison:
    """Optimizers beside each other: their directions on the same batches, their training runs from the same weights.

    mode="directions": on a problem the baseline, by default the exact block Fisher, trains the network, and at each of
    its steps all say where they would go from there (ren 4.3.4, Figure 4.1); on a saved model the weights stay, and
    statistics are averaged over one pass of the data. mode="training": races, each run in a process of its own.

    Args:
        what: a problem's name (for races several); or a saved model's path, a Checkpoint, or a network.
        optimizers: names, or "label=name" for one with settings of its own.
        request: all choices in one value; `options` are its fields, and those of its `sampling`, by name:
            `compare("digits-mlp", ["lnb", "kfac"], steps=50, seed=1, settings={"kfac": {"damping": 0.03}})`.
        report: told (stage, done, total).
        command: the command line, for the result.

    Raises:
        CurvlabError: an optimizer, a setting or a layer that does not exist, data or network that cannot be used, or a
            baseline that left the finite numbers.
    """
    asked = (request or Request()).asked(options)
    problems = problems_of(what)
    if len(problems) > 1 and asked.mode != "training":
        raise CommandError("directions are of one problem at a time", f"{len(problems)} are given")
    if asked.mode != "directions" and not problems:
        raise CommandError("a race needs a problem, not a saved model", do="see curvlab list problems")
    # What is wrong with either is said before the work of both; races, which take longest, come last.
    races = None if asked.mode == "directions" else _race_settings(problems, optimizers, asked)
    if asked.mode == "training":
        found = _without_directions(problems, asked)
    else:
        found = _directions(what, problems, optimizers, asked, report)
    return replace(found, training=None if races is None else _races(races, report), command=command)


def _directions(
    what: Any, problems: tuple[str, ...], optimizers: Sequence[str], asked: Request, report: Report
) -> Comparison:
    # What a model draws (dropout) is then the same for everyone who compares with this seed.
    device = pick_device(asked.sampling.device)
    with torch.random.fork_rng([torch.cuda.current_device()] if device.type == "cuda" else []):
        torch.manual_seed(asked.sampling.seed)
        subject = of_problem(problems[0], asked.sampling) if problems else of_model(what, asked.sampling)
        return directions(subject, optimizers, asked, report)


def problems_of(what: object) -> tuple[str, ...]:
    """The names of problems that this is; none where it is a model.

    Raises:
        CurvlabError: it is a list, and a word in it names no problem.
    """
    if isinstance(what, str):
        return (what,) if what in registry.names() else ()
    words = tuple(what) if isinstance(what, list | tuple) else ()
    return tuple(registry.problem(word).name for word in words)


def _race_settings(problems: tuple[str, ...], optimizers: Sequence[str], asked: Request) -> RaceSettings:
    from curvlab.comparison.race_settings import RaceSettings

    found = contestants(optimizers, asked.settings, also=[asked.baseline])
    sampling = asked.sampling
    return RaceSettings(
        problems,
        {one.label: {"optimizer": one.optimizer, **one.settings} for one in found},
        seeds=asked.seeds or (sampling.seed,),
        epochs=asked.epochs,
        steps=asked.steps if asked.mode == "training" else None,
        seconds=asked.seconds,
        target=asked.target,
        data=sampling.data,
        device=sampling.device,
        dtype=sampling.dtype,
        max_memory=sampling.max_memory,
    )


def _races(settings: RaceSettings, report: Report) -> Races:
    from curvlab.comparison.race import race

    return race(settings, report)


def _without_directions(problems: tuple[str, ...], asked: Request) -> Comparison:
    return Comparison(
        problem=problems[0] if len(problems) == 1 else ",".join(problems),
        baseline=None,
        steps=0,
        measured=(),
        optimizers={},
        reference=None,
        seed=asked.sampling.seed,
        hashes={},
        data={},
        environment=environment(pick_device(asked.sampling.device)),
    )
