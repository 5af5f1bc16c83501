"""Plan: what a comparison would look at and need, before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from curvlab.analyses.job import Model
from curvlab.capture.survey import survey
from curvlab.comparison.blocks import layers_of
from curvlab.comparison.compare import problems_of
from curvlab.comparison.contestants import contestants
from curvlab.comparison.request import STEPS, Request
from curvlab.comparison.subject import of_model, of_problem
from curvlab.errors import CommandError


@dataclass(frozen=True)
class PlannedLayer:
    """A layer of a comparison of directions.

    Attributes:
        name: as in the result.
        parameters: d.
        block_bytes: of its exact Fisher block, d² numbers; three times that are needed while it is averaged.
    """

    name: str
    parameters: int
    block_bytes: int


@dataclass(frozen=True)
class Plan:
    """What would be done.

    Attributes:
        problem: name of the problem or path of the model.
        mode: "directions", "training" or "both".
        baseline: of directions.
        steps: of the trajectory; batches of the one pass at a model's weights.
        batch_size: of directions.
        layers: what directions are compared on.
        runs: label and seed of every training run.
        optimizers: label -> {"optimizer", settings that were asked for}.
    """

    problem: str
    mode: str
    baseline: str
    steps: int
    batch_size: int
    layers: tuple[PlannedLayer, ...]
    runs: tuple[tuple[str, str, int], ...]
    optimizers: dict[str, dict[str, Any]]


def plan(what: str | Model | Sequence[str], optimizers: Sequence[str], request: Request) -> Plan:
    """Loads network and data, runs the network on two examples, and computes nothing else.

    Raises:
        CurvlabError: as `compare` would before it begins.
    """
    found = contestants(optimizers, request.settings, also=[request.baseline])
    problems = problems_of(what)
    if request.mode != "directions" and not problems:
        raise CommandError("a race needs a problem, not a saved model", do="see curvlab list problems")
    seeds = request.seeds or (request.sampling.seed,)
    raced = request.mode != "directions"
    runs = tuple((name, one.label, seed) for name in problems for seed in seeds for one in found) if raced else ()
    named = {one.label: {"optimizer": one.optimizer, **one.settings} for one in found}
    if request.mode == "training":
        return Plan(", ".join(problems), request.mode, request.baseline, 0, 0, (), runs, named)
    subject = of_problem(problems[0], request.sampling) if problems else of_model(what, request.sampling)  # type: ignore[arg-type]
    sizes = {name: (p.numel(), p.element_size()) for name, p in subject.model.named_parameters()}
    layers = []
    for name, names in layers_of(subject.model, survey(subject.model, subject.first), request.layers).items():
        size, number = sum(sizes[one][0] for one in names), max(sizes[one][1] for one in names)
        layers.append(PlannedLayer(name, size, size**2 * number))
    steps = (request.steps or STEPS) if subject.moves else subject.passes
    size = int(subject.info["batch_size"])
    return Plan(subject.name, request.mode, request.baseline, steps, size, tuple(layers), runs, named)
