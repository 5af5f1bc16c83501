"""DataPass: the passes over the data, which average what the chosen analyses need, each for some of the layers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from curvlab.analyses.averages import Averages
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
    """The passes over the data: a copy of the network in eval mode, and what is collected from it.

    Attributes:
        module: the copy.
        source: the data.
        found: the layers that two examples ran through.
        likelihood: ℓ.
        settings: targets of the output gradients, seed.
        plan: which blocks of which recipes are averaged in which pass, and how many examples run at once.
        seconds: that a forward and a backward pass of one example took.
        gradient: the mean gradients that are asked for, or None.
    """

    module: nn.Module
    source: Source
    found: Survey
    likelihood: Likelihood
    settings: Settings
    plan: MemoryPlan
    seconds: float = 0.0
    gradient: MeanGradient | None = None

    @property
    def backward(self) -> bool:
        """Whether anything needs the gradients at outputs of layers."""
        asked = any(not one.of_inputs for one in self.plan.curvatures)
        return asked and self.settings.fisher_type != "forward-only"


def collected(
    run: DataPass, number: int, device: torch.device, tell: Callable[[int], None]
) -> tuple[Averages, Mapping[str, str]]:
    """The averages of one pass over all batches, and the layers that could not be recorded with their reasons.

    Every pass draws the same targets, so that the numbers do not depend on how layers are shared out.

    Args:
        run: the passes.
        number: of the pass; what is not about single layers is done in the first, 0.
        device: where the network is.
        tell: told how many examples have been seen.
    """
    dtype = next(run.module.parameters()).dtype
    batches: Iterator[Batch] = (moved(batch, device, dtype) for batch in run.source.batches(run.plan.batch.size))
    if run.gradient is not None and number == 0:
        batches = run.gradient.watching(batches)
    part = run.plan.passes[number]
    settings, averages = run.settings, Averages(part.recipes, run.plan.halves)
    generator = torch.Generator().manual_seed(settings.seed)
    fisher = Fisher(run.likelihood, settings.fisher_type, settings.mc_samples, generator)
    recorder = ForwardBackward(
        run.module,
        "the profile",
        found=_of_layers(run.found, part.layers),
        output_gradients=run.backward,
        stream=True,
        hold_inputs=any(one.holds_inputs for one in run.plan.curvatures),
        dtype=torch.float64,  # ranks, and condition numbers beyond 1e7, are not in a float32 product
    )
    score = DataScore(run.likelihood)
    listening = run.module.register_forward_hook(score.seen) if number == 0 else None
    try:
        for inputs, targets in score.watching(batches) if number == 0 else batches:
            recorder.batch(inputs, targets, fisher, averages)
            averages.end(batch_size(inputs))
            tell(averages.examples)
    finally:
        recorder.close()
        if listening is not None:
            listening.remove()
    if number == 0:
        run.source.info.update(samples=averages.examples, **score.facts())
    refused = {name: why for name, why in recorder.refused.items() if name not in run.found.refused}
    return averages, refused


def _of_layers(found: Survey, layers: Collection[str]) -> Survey:
    """The survey with these layers alone: only they are recorded."""
    blocks = {name: block for name, block in found.blocks.items() if name in layers}
    return replace(found, blocks=blocks, block_of={u: name for u, name in found.block_of.items() if name in blocks})
