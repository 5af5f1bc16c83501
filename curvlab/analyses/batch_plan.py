"""BatchPlan: how many examples run at once, and the memory that they take while they do."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from curvlab.analyses.live_memory import LivePeak
from curvlab.capture.forward_backward import ForwardBackward
from curvlab.capture.model_inputs import Inputs, batch_size, tensors_of
from curvlab.capture.survey import Survey
from curvlab.curvatures.room import Room
from curvlab.errors import CurvlabError
from curvlab.layers.layer import Layer
from curvlab.likelihoods import Likelihood
from curvlab.likelihoods.fisher import Fisher

BATCH_SIZE = 256
"""The most examples of a batch whose size is not given."""
SHARE = 0.4
"""Share of the memory that a batch may take; the rest is for averages."""

AROUND = 8
"""Bytes of a pass to one of what its modules return, about: more than in any network that was measured."""
SMALL = 0.05
"""Share of the memory up to which that is good enough."""


@dataclass(frozen=True)
class Probe:
    """What one example takes.

    Attributes:
        bytes: of tensors alive at once in a forward and a backward pass, per example.
        seconds: of them, per example.
    """

    bytes: int
    seconds: float


@dataclass(frozen=True)
class BatchPlan:
    """Examples per pass through the network, and the most bytes that a batch takes beside what is averaged."""

    size: int
    bytes: int


def probe(
    module: nn.Module, found: Survey, likelihood: Likelihood, first: Inputs, targets: Tensor | None, backward: bool
) -> Probe | None:
    """Run a few examples as a pass does, without statistics, and count the bytes; None where they do not run so."""
    known = [*module.parameters(), *module.buffers(), *tensors_of(first)]
    fisher = Fisher(likelihood, "mc" if backward else "forward-only", generator=torch.Generator().manual_seed(0))
    recorder = ForwardBackward(module, "the profile", found=found, output_gradients=backward, stream=True)
    count = batch_size(first)
    start = time.perf_counter()
    try:
        # What is wrong with the data is told by the pass itself; kinds of tensors that cannot be counted are not.
        with contextlib.suppress(CurvlabError, RuntimeError, TypeError), LivePeak(known) as live:
            recorder.batch(first, None if targets is None else targets[:count], fisher)
            return Probe(-(-live.peak // count), (time.perf_counter() - start) / count)
    finally:
        recorder.close()
    return None


def batch_plan(
    asked: int | None, per_example: int, room: int, samples: int | None, found: Survey, backward: bool
) -> BatchPlan:
    """As many examples as fit `SHARE` of the memory, unless a number is asked for.

    Args:
        asked: the number that was asked for.
        per_example: bytes.
        room: bytes for the batch and all averages.
        samples: of the data.
        found: the layers.
        backward: whether output gradients are recorded.
    """
    each = per_example + _converted(found, backward)
    most = min(BATCH_SIZE, samples or BATCH_SIZE)
    size = asked or max(1, min(most, int(SHARE * room) // max(1, each)))
    return BatchPlan(size, each * min(size, samples or size))


def _converted(found: Survey, backward: bool) -> int:
    """Bytes per example of the layer whose features and gradients are largest, in float64 for one half at a time, and
    what is made of them."""
    sizes: Iterable[int] = (
        block.positions * block.layer.groups * (8 * block.layer.in_features + backward * _gradient(block.layer))
        for block in found.blocks.values()
    )
    return max(sizes, default=0)


def _gradient(layer: Layer) -> int:
    """Bytes of a row of output gradients; those too wide for a matrix stay in their own type."""
    return (8 if Room().square(layer.out_features) else 4) * layer.out_features
