"""CurvaturePass: the averages of one registered curvature over the data and over its two halves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from curvlab.capture.batch_record import Samples
from curvlab.capture.survey import Survey
from curvlab.curvatures.blocks import PreconditionerBlock
from curvlab.curvatures.curvature import Curvature
from curvlab.curvatures.data_average import DataAverage
from curvlab.curvatures.registry import CURVATURES
from curvlab.operators.operator import Operator

LARGEST = 2 * 2**30
"""Bytes that the averages of one block may take where no budget is given."""


class HalvedAverage:
    """An observer: `parts` are the averages over all examples, and over every second one from the first and the second.

    A statistic of a batch as a whole has no halves.
    """

    def __init__(self, curvature: Curvature, blocks: list[PreconditionerBlock], halves: bool) -> None:
        count = 3 if halves and not curvature.of_batches else 1
        self.parts = tuple(DataAverage(curvature, blocks) for _ in range(count))

    def inputs(self, samples: Samples) -> None:
        """See `Observer.inputs`."""
        for part, own in self._split(samples):
            part.inputs(own)

    def output_gradients(self, samples: Samples, passed: int) -> None:
        """See `Observer.output_gradients`."""
        for part, own in self._split(samples):
            part.output_gradients(own, passed)

    def end(self, examples: int) -> None:
        """The end of a batch of so many examples."""
        seen = self.parts[0].examples
        self.parts[0].end(examples)
        for half, part in enumerate(self.parts[1:]):
            part.end(len(range((half + seen) % 2, examples, 2)))

    def _split(self, samples: Samples) -> Iterator[tuple[DataAverage, Samples]]:
        seen = self.parts[0].examples
        yield self.parts[0], samples
        for half, part in enumerate(self.parts[1:]):
            first = (half + seen) % 2
            if any(first < sample.examples for sample in samples.values()):
                yield part, {name: sample.half(first) for name, sample in samples.items()}


class CurvaturePass:
    """A recipe in a pass over the data.

    Args:
        name: of the registered curvature.
        found: the layers of the network.
        fisher_type: targets of the output gradients.
        mc_samples: sampled targets per example.
        halves: whether there are standard errors.
        budget: bytes for the averages of all blocks; blocks that do not fit are left out, largest first.

    Attributes:
        left_out: layer -> bytes that its block would take.
    """

    def __init__(
        self, name: str, found: Survey, fisher_type: str, mc_samples: int, halves: bool, budget: int | None
    ) -> None:
        self.curvature = CURVATURES[name]()
        self.curvature.fisher_type, self.curvature.mc_samples = fisher_type, mc_samples
        sizes = {one.name: (3 if halves else 1) * self.curvature.bytes(one) for one in self.curvature.profiled(found)}
        total, self.left_out = sum(sizes.values()), dict[str, int]()
        for layer, size in sorted(sizes.items(), key=lambda item: -item[1]):
            if size > LARGEST if budget is None else total > budget:
                self.left_out[layer] = size
                total -= size
        self.blocks = [one for one in self.curvature.profiled(found) if one.name not in self.left_out]
        self.average = HalvedAverage(self.curvature, self.blocks, halves)

    def operators(self) -> tuple[Mapping[str, Operator], ...]:
        """Layer -> the undamped operator, over all the data and over each half; of parameter tensors, the weight's."""
        return tuple(self._of(part) for part in self.average.parts)

    def _of(self, part: DataAverage) -> dict[str, Operator]:
        states, found = part.states(), dict[str, Operator]()
        for one in self.blocks:
            operator = self.curvature.operator(one, states[one.name]) if one.name in states else None
            if operator is not None and one.uses:
                found.setdefault(one.uses[0].block.name, operator)
        return found
