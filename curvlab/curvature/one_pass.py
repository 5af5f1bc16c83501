"""One pass over the data of a caller, for one or more recipes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from curvlab.capture.batch_record import Together
from curvlab.capture.forward_backward import ForwardBackward
from curvlab.capture.model_inputs import Inputs, batch_size
from curvlab.capture.preserve import preserve, seed_generators
from curvlab.capture.survey import Survey, first_examples, survey
from curvlab.curvatures.curvature import Curvature
from curvlab.curvatures.data_average import DataAverage
from curvlab.errors import CurvlabError
from curvlab.likelihoods import Likelihood
from curvlab.likelihoods.fisher import Fisher

Loader = Iterable[Any]
"""Batches (inputs, targets), or bare inputs."""
Data = Inputs | Loader


def averages_of(
    model: nn.Module, x: Data, y: Tensor | None, chosen: Likelihood | None, recipes: Sequence[Curvature], seed: int
) -> tuple[Survey, list[DataAverage]]:
    """What the model is made of, and the averages of each recipe over all batches."""
    batches = batches_of(x, y)
    first = next(batches, None)
    if first is None:
        raise CurvlabError("the loader gave no batch")
    if batch_size(first[0]) == 0:
        raise CurvlabError("the data holds no examples")
    found = survey(model, first_examples(first[0], 2))
    if not found.blocks:
        reasons = "; ".join(f"{name or 'the model'}: {why}" for name, why in found.refused.items()) or "it has none"
        raise CurvlabError("no layer of the model could be recorded", reasons)
    of_outputs = next((one for one in recipes if not one.of_inputs), recipes[0])
    fisher_type = "forward-only" if chosen is None else of_outputs.fisher_type
    fisher = Fisher(chosen, fisher_type, of_outputs.mc_samples, torch.Generator().manual_seed(seed))
    dtype = next(model.parameters()).dtype
    for recipe in recipes:
        recipe.room = replace(recipe.room, products=torch.promote_types(dtype, torch.float32))
    averages = [DataAverage(recipe, recipe.profiled(found)) for recipe in recipes]
    recorder = ForwardBackward(
        model,
        "curvlab.curvature",
        found=found,
        output_gradients=fisher.backward,
        stream=True,
        hold_inputs=any(recipe.holds_inputs for recipe in recipes),
        dtype=dtype,
    )
    together = Together(averages)
    try:
        with preserve(model):
            seed_generators(model, seed + 1)  # not the stream that pseudo-targets are drawn from
            for inputs, targets in chain([first], batches):
                together.end(recorder.batch(inputs, targets, fisher, together).examples)
    finally:
        recorder.close()
    return found, averages


def batches_of(x: Data, y: Tensor | None) -> Iterator[tuple[Inputs, Tensor | None]]:
    """(inputs, targets) batches from tensors (one batch) or from a loader, whose items may also be bare inputs."""
    if isinstance(x, Tensor | Mapping | tuple):
        yield x, y
        return
    if y is not None:
        raise CurvlabError("targets were given beside a loader", "a loader brings its own", "give y=None")
    for item in x:
        if isinstance(item, tuple | list) and len(item) == 2:
            yield item[0], item[1]
        elif isinstance(item, Tensor | Mapping):
            yield item, None
        else:
            raise CurvlabError(f"the loader gave a {type(item).__name__}", "it must give tensors or (inputs, targets)")
