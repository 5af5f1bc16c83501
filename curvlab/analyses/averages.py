"""Averages: an observer of a pass over the data that feeds recipes, each over all examples and over two halves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from curvlab.capture.batch_record import Samples
from curvlab.curvatures.blocks import PreconditionerBlock
from curvlab.curvatures.curvature import Curvature
from curvlab.curvatures.data_average import BlockAverage, DataAverage


@dataclass(frozen=True)
class Part:
    """Averages over all examples, or over one of the halves.

    Attributes:
        examples: N.
        batches: how many batches they came in.
        rows: layer -> N·T, rows of features that it was given.
        layers: layer -> name of a recipe -> the averages of its blocks there.
    """

    examples: int
    batches: int
    rows: Mapping[str, int]
    layers: Mapping[str, Mapping[str, tuple[BlockAverage, ...]]]


class Averages:
    """An observer of all batches of a pass.

    Every second example goes to one half and the others to the other, over the whole data, however it is cut into
    batches; the average over all examples is made of the two. A statistic of batches as a whole has no halves.

    Args:
        recipes: each with its blocks.
        halves: whether there are halves.

    Attributes:
        examples: N so far.
        batches: their number so far.
    """

    def __init__(self, recipes: Sequence[tuple[Curvature, Sequence[PreconditionerBlock]]], halves: bool) -> None:
        self.examples = self.batches = 0
        split = [one for one in recipes if halves and one[0].halved and not one[0].of_batches]
        self._whole = [DataAverage(*one) for one in recipes if one not in split]
        self._halves = tuple([DataAverage(*one) for one in split] for _ in range(2 if halves else 0))
        self._sizes = [0] * len(self._halves)

    def inputs(self, samples: Samples) -> None:
        """See `Observer.inputs`."""
        for averages, own in self._split(samples):
            for one in averages:
                one.inputs(own)

    def output_gradients(self, samples: Samples, passed: int) -> None:
        """See `Observer.output_gradients`."""
        for averages, own in self._split(samples):
            for one in averages:
                one.output_gradients(own, passed)

    def end(self, examples: int) -> None:
        """The end of a batch of so many examples."""
        for one in self._whole:
            one.end(examples)
        for half, averages in enumerate(self._halves):
            own = len(range(self._first(half), examples, 2))
            self._sizes[half] += own
            for one in averages:
                one.end(own)
        self.examples += examples
        self.batches += 1

    def parts(self) -> tuple[Part, ...]:
        """All examples, then each half where both hold some. Nothing can be added afterwards."""
        joined = [first.merged(second) for first, second in zip(*self._halves, strict=True)] if self._halves else []
        whole = self._part(self.examples, [*self._whole, *joined])
        if not self._sizes or not all(self._sizes):
            return (whole,)
        return (whole, *(self._part(size, one) for size, one in zip(self._sizes, self._halves, strict=True)))

    def _first(self, half: int) -> int:
        """The first example of the current batch that goes to a half."""
        return (half + self.examples) % 2

    def _split(self, samples: Samples) -> Iterator[tuple[Sequence[DataAverage], Samples]]:
        yield self._whole, samples
        for half, averages in enumerate(self._halves):
            first = self._first(half)
            if averages and any(first < sample.examples for sample in samples.values()):
                yield averages, {name: sample.half(first) for name, sample in samples.items()}

    def _part(self, examples: int, averages: Sequence[DataAverage]) -> Part:
        layers: dict[str, dict[str, tuple[BlockAverage, ...]]] = {}
        for one in averages:
            for average in one.averages().values():
                block = average.block
                # A tensor is shown in every layer that uses it, a matrix in the layer whose it is.
                for layer in dict.fromkeys(use.block.name for use in block.uses[: 1 if block.is_matrix else None]):
                    own = layers.setdefault(layer, {})
                    own[one.curvature.name] = (*own.get(one.curvature.name, ()), average)
        return Part(examples, self.batches, averages[0].rows if averages else {}, layers)
