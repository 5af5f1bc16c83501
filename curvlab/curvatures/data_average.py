"""DataAverage: the statistics of a recipe over a pass over the data, in float64, however it is cut into batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from curvlab.capture.batch_record import Samples
from curvlab.curvatures.batch_sums import BatchSums
from curvlab.curvatures.blocks import PreconditionerBlock
from curvlab.curvatures.curvature import Curvature, State
from curvlab.curvatures.kept_rows import divided, unscaled
from curvlab.operators.operator import Operator


@dataclass(frozen=True)
class BlockAverage:
    """What a recipe has averaged of one block over some of the examples."""

    curvature: Curvature
    block: PreconditionerBlock
    state: State

    @cached_property
    def operator(self) -> Operator | None:
        """The matrix of the block, undamped; None where the recipe has none to show."""
        return self.curvature.operator(self.block, self.state)


class DataAverage:
    """An observer of all batches of a pass; `end` after each of them.

    Sums over examples are added up and divided once. Statistics that are no sums over examples (the contraction of a
    batch's mean gradient) are made of every batch by itself, and their mean over batches is taken.

    Args:
        curvature: the recipe.
        blocks: whose statistics.

    Attributes:
        examples: N so far.
        batches: their number so far.
        rows: layer -> N·T so far, without padding.
    """

    def __init__(self, curvature: Curvature, blocks: Sequence[PreconditionerBlock]) -> None:
        self.curvature, self.blocks = curvature, blocks
        self.examples = self.batches = 0
        self.rows: dict[str, int] = {}
        self._sums = BatchSums(curvature, blocks, dtype=torch.float64)
        self._means: dict[str, State] = {}

    def inputs(self, samples: Samples) -> None:
        """See `Observer.inputs`."""
        for layer, sample in samples.items():
            self.rows[layer] = self.rows.get(layer, 0) + sample.rows
        self._sums.inputs(samples)

    def output_gradients(self, samples: Samples, passed: int) -> None:
        """See `Observer.output_gradients`."""
        self._sums.output_gradients(samples, passed)

    def end(self, examples: int) -> None:
        """The end of a batch of so many examples."""
        self.examples += examples
        self.batches += 1
        if self.curvature.of_batches:
            for name, fresh in self._sums.averaged(examples).items():
                held = self._means.setdefault(name, {})
                self.curvature.add(held, unscaled(fresh), ())

    def average(self, block: PreconditionerBlock, others: Sequence[DataAverage] = ()) -> BlockAverage | None:
        """The statistics of one block over all examples of this average and of `others`, which are not for statistics
        of batches; None where nothing has reached it. It can be asked for again, and more can be added."""
        if self.curvature.of_batches:
            held = self._means.get(block.name)
            state = None if held is None else divided(held, self.batches)
        else:
            examples = self.examples + sum(one.examples for one in others)
            state = self._sums.average_of(block, [one._sums for one in others], examples)
        return None if state is None else BlockAverage(self.curvature, block, state)

    def release(self, name: str) -> None:
        """Let go of what was summed of a block."""
        self._means.pop(name, None)
        self._sums.sums.pop(name, None)

    def averages(self) -> dict[str, BlockAverage]:
        """Block name -> its statistics over all batches, float64; blocks that nothing has reached are left out.

        The sums are gone afterwards: nothing can be added or merged any more.
        """
        if self.curvature.of_batches:
            states = {name: divided(state, self.batches) for name, state in self._means.items()}
        else:
            states = self._sums.averaged(self.examples)
        return {
            block.name: BlockAverage(self.curvature, block, states[block.name])
            for block in self.blocks
            if block.name in states
        }
