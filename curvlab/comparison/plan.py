"""Plan: the layers, runs and memory of a comparison, before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from curvlab.capture.survey import survey
from curvlab.comparison.blocks import layers_of
from curvlab.comparison.optimizer_specs import specs
from curvlab.comparison.request import STEPS, Request
from curvlab.comparison.sources import What, source_of
from curvlab.comparison.workload import of_model, of_problem


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


def plan(what: What, optimizers: Sequence[str], request: Request) -> Plan:
    """Loads network and data, runs the network on two examples, and computes nothing else.

    Raises:
        CurvlabError: as `compare` would before it begins.
    """
    raced, mode = request.mode != "directions", request.mode
    found = specs(optimizers, request.settings, also=[] if mode == "training" else request.baselines)
    source, options = source_of(what, request), request.data_options
    seeds = request.seeds or (options.seed,)
    names = (source.problems or (source.name or "module",)) if raced else ()
    runs = tuple((name, one.label, seed) for name in names for seed in seeds for one in found)
    named = {one.label: {"optimizer": one.optimizer, **one.settings} for one in found}
    if mode == "training":
        source.races(request)  # what is missing is said
        return Plan(", ".join(names), mode, request.baselines[0], 0, 0, (), runs, named)
    moving = source.directions
    workload = of_model(source.model, options) if moving is None else of_problem(moving, options)  # type: ignore[arg-type]
    sizes = {name: (p.numel(), p.element_size()) for name, p in workload.model.named_parameters()}
    layers = []
    for name, members in layers_of(workload.model, survey(workload.model, workload.first), request.layers).items():
        size, number = sum(sizes[one][0] for one in members), max(sizes[one][1] for one in members)
        layers.append(PlannedLayer(name, size, size**2 * number))
    steps = (request.steps or STEPS) if workload.moves else workload.passes
    size = int(workload.info["batch_size"])
    return Plan(workload.name, mode, request.baselines[0], steps, size, tuple(layers), runs, named)
