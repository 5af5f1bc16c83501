"""DataPass: one pass over the data, which averages what the chosen analyses need."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from curvlab.analyses.averages import Averages, Part
from curvlab.analyses.data_score import DataScore
from curvlab.analyses.mean_gradient import Batch, MeanGradient
from curvlab.analyses.memory_plan import MemoryPlan
from curvlab.analyses.settings import Settings
from curvlab.analyses.source import Source, moved
from curvlab.capture.forward_backward import ForwardBackward
from curvlab.capture.model_inputs import batch_size
from curvlab.capture.survey import Survey
from curvlab.likelihoods import Likelihood
from curvlab.likelihoods.fisher import Fisher


@dataclass
class DataPass:
    """The pass over the data: a copy of the network in eval mode, and what is collected from it.

    Attributes:
        module: the copy.
        source: the data.
        found: the layers that two examples ran through.
        likelihood: ℓ.
        settings: targets of the output gradients, seed.
        plan: recipes, and the blocks that fit the memory.
        batch_size: examples per forward pass.
        activations: bytes per example.
        gradient: the mean gradients that are asked for, or None.
    """

    module: nn.Module
    source: Source
    found: Survey
    likelihood: Likelihood
    settings: Settings
    plan: MemoryPlan
    batch_size: int
    activations: int
    gradient: MeanGradient | None = None

    @property
    def backward(self) -> bool:
        """Whether anything needs the gradients at outputs of layers."""
        asked = any(not one.of_inputs for one in self.plan.curvatures)
        return asked and self.settings.fisher_type != "forward-only"


def collected(
    run: DataPass, device: torch.device, tell: Callable[[int], None]
) -> tuple[tuple[Part, ...], Mapping[str, str]]:
    """The averages over all batches and over two halves, and the layers that could not be recorded with their reasons.

    Args:
        run: the pass.
        device: where the network is.
        tell: told how many examples have been seen.
    """
    dtype = next(run.module.parameters()).dtype
    batches: Iterator[Batch] = (moved(batch, device, dtype) for batch in run.source.batches(run.batch_size))
    if run.gradient is not None:
        batches = run.gradient.watching(batches)
    settings, averages = run.settings, Averages(run.plan.recipes, run.plan.halves)
    generator = torch.Generator().manual_seed(settings.seed)
    fisher = Fisher(run.likelihood, settings.fisher_type, settings.mc_samples, generator)
    recorder = ForwardBackward(
        run.module,
        "the profile",
        found=run.found,
        output_gradients=run.backward,
        stream=True,
        hold_inputs=any(one.holds_inputs for one in run.plan.curvatures),
        dtype=torch.float64,  # ranks, and condition numbers beyond 1e7, are not in a float32 product
    )
    score = DataScore(run.likelihood)
    listening = run.module.register_forward_hook(score.seen)
    try:
        for inputs, targets in score.watching(batches):
            recorder.batch(inputs, targets, fisher, averages)
            averages.end(batch_size(inputs))
            tell(averages.examples)
    finally:
        recorder.close()
        listening.remove()
    run.source.info.update(samples=averages.examples, **score.facts())
    refused = {name: why for name, why in recorder.refused.items() if name not in run.found.refused}
    return averages.parts(), refused
