"""Averages: an observer of a pass over the data that feeds recipes, each over all examples and over two halves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from curvlab.analyses.layer_data import LayerStatistics
from curvlab.capture.batch_record import Samples
from curvlab.curvatures.blocks import PreconditionerBlock
from curvlab.curvatures.curvature import Curvature
from curvlab.curvatures.data_average import BlockAverage, DataAverage


class Averages:
    """An observer of all batches of a pass.

    Every second example goes to one half and the others to the other, over the whole data, however it is cut into
    batches; the average over all examples is made of the two, for one layer at a time. A statistic of batches as a
    whole has no halves.

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
        self._blocks: dict[str, dict[str, list[PreconditionerBlock]]] = {}
        """Recipe -> layer -> the blocks that it shows."""
        self._shown: dict[str, set[str]] = {}
        """Block -> the layers that show it, until they are done."""
        for curvature, blocks in recipes:
            shown = self._blocks.setdefault(curvature.name, {})
            for block in blocks:
                for layer in _shown(block):
                    shown.setdefault(layer, []).append(block)
                    self._shown.setdefault(block.name, set()).add(layer)

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

    def layer(self, name: str) -> tuple[LayerStatistics, ...]:
        """The statistics of one layer: over all examples, then over each half where both hold some."""
        joined = list(zip(*self._halves, strict=True)) if self._halves else []
        whole = [(one, ()) for one in self._whole] + [(first, (second,)) for first, second in joined]
        found = [self._statistics(name, self.examples, whole)]
        if self._sizes and all(self._sizes):
            for size, averages in zip(self._sizes, self._halves, strict=True):
                found.append(self._statistics(name, size, [(one, ()) for one in averages]))
        return tuple(found)

    def release(self, name: str) -> None:
        """The layer's statistics are not asked for again; those of a tensor stay while another layer shows it."""
        for averages in (self._whole, *self._halves):
            for one in averages:
                for block in self._blocks[one.curvature.name].get(name, ()):
                    left = self._shown[block.name]
                    left.discard(name)
                    if not left:
                        one.release(block.name)

    def _first(self, half: int) -> int:
        """The first example of the current batch that goes to a half."""
        return (half + self.examples) % 2

    def _split(self, samples: Samples) -> Iterator[tuple[Sequence[DataAverage], Samples]]:
        yield self._whole, samples
        for half, averages in enumerate(self._halves):
            first = self._first(half)
            if averages and any(first < sample.examples for sample in samples.values()):
                yield averages, {name: sample.half(first) for name, sample in samples.items()}

    def _statistics(
        self, name: str, examples: int, averages: Sequence[tuple[DataAverage, Sequence[DataAverage]]]
    ) -> LayerStatistics:
        found: dict[str, tuple[BlockAverage, ...]] = {}
        rows = 0
        for one, others in averages:
            rows = sum(part.rows.get(name, 0) for part in (one, *others))
            made = (one.average(block, others) for block in self._blocks[one.curvature.name].get(name, ()))
            if known := tuple(average for average in made if average is not None):
                found[one.curvature.name] = known
        return LayerStatistics(examples, rows, found)


def _shown(block: PreconditionerBlock) -> Iterator[str]:
    """The layers that show a block: a tensor every layer that uses it, a matrix the layer whose it is."""
    yield from dict.fromkeys(use.block.name for use in block.uses[: 1 if block.is_matrix else None])
