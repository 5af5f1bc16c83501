"""The second sample of a step: its batches run again with the new weights, and nothing else different (Ren 2022,
section 2.5.2).

Random numbers are drawn from the state the first run began with, so that dropout keeps its masks; modules stay in the
mode they are in; buffers (batch norm's running statistics and their count) and the random state are afterwards as they
were, so that a step touches them once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from curvlab.capture.batch_record import BatchRecord
from curvlab.capture.closures import Closure
from curvlab.capture.forward_backward import ForwardBackward
from curvlab.capture.model_call import ModelCall
from curvlab.errors import CurvlabError
from curvlab.optim.grouped_parameters import Named
from curvlab.optim.model_calls import at_calls

Inputs = tuple[tuple[Tensor, int], ...]
"""Tensors a model was called with, and their versions then."""


@dataclass(frozen=True, eq=False)
class Part:
    """One (micro-)batch of a step.

    Attributes:
        before: random state and autocast just before the closure ran.
        closure: what runs the model.
        inputs: of the model.
        examples: N.
    """

    before: ModelCall
    closure: Closure
    inputs: Inputs
    examples: int


class Sampler:
    """Runs a step's closures, and the same closures again after the step.

    Args:
        recorder: of the optimizer's model.

    Attributes:
        parts: batches seen since the last `take`.
    """

    def __init__(self, recorder: ForwardBackward) -> None:
        self.recorder = recorder
        self.parts: list[Part] = []
        self._inputs: Inputs = ()

    def note(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Keep the inputs of the model's last call."""
        self._inputs = tuple((x, x._version) for x in (*args, *kwargs.values()) if isinstance(x, Tensor))

    def first(self, closure: Closure, parameters: Named, keep: bool) -> BatchRecord:
        """The closure's batch, with the gradients of its loss; `keep` if there will be a second time."""
        before = ModelCall.of(self.recorder.model, (), {})
        with at_calls(self.recorder.model, self.note):
            record = self.recorder.closure(closure, parameters, keep=keep)
        if keep:
            self.parts.append(Part(before, closure, self._inputs, record.examples))
        return record

    def take(self) -> list[Part]:
        """The parts, which are the caller's from now on."""
        parts, self.parts = self.parts, []
        return parts

    def again(self, part: Part, parameters: Named) -> BatchRecord:
        """What the part's batch shows now; without `parameters` no gradient of a weight is computed.

        Raises:
            CurvlabError: the closure has given the model another batch this time.
        """
        model = self.recorder.model
        with at_calls(model, self.note), part.before.again(model), torch.enable_grad():
            record = self.recorder.closure(part.closure, parameters, keep=True)
        if len(self._inputs) != len(part.inputs) or not all(map(_same, part.inputs, self._inputs)):
            raise CurvlabError(
                f"{self.recorder.name}: the closure gave the model other inputs when it was run again",
                "the second sample of a step must be of the same batch",
                "take the batch before the closure, not in it",
            )
        self._inputs = ()
        return record


def _same(first: tuple[Tensor, int], second: tuple[Tensor, int]) -> bool:
    """Whether two inputs are the same numbers; the device is asked only where they are not the same memory."""
    (a, version), (b, _) = first, second
    if a.shape != b.shape or a.dtype != b.dtype or a._version != version:
        return False
    return (a.data_ptr() == b.data_ptr() and a.stride() == b.stride()) or torch.equal(a, b)
