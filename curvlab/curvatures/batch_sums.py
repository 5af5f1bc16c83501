"""BatchSums: what a curvature measures of the batches of one step, or of a whole pass over the data, added up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from curvlab.capture.batch_record import Samples
from curvlab.curvatures.blocks import PreconditionerBlock
from curvlab.curvatures.curvature import Count, Curvature, State


class BatchSums:
    """An observer that adds up the sums of one recipe.

    Args:
        curvature: the recipe.
        blocks: whose sums.
        averages: block name -> averages so far, which some recipes measure against (EKFAC's basis).

    Attributes:
        sums: block name -> statistic -> sum.
        rows: layer name -> N·T so far, without padding.
    """

    def __init__(
        self,
        curvature: Curvature,
        blocks: Sequence[PreconditionerBlock],
        averages: Mapping[str, State] | None = None,
    ) -> None:
        self.curvature, self.blocks, self.averages = curvature, blocks, {} if averages is None else averages
        self.sums: dict[str, State] = {}
        self.rows: dict[str, int] = {}

    def inputs(self, samples: Samples) -> None:
        """See `Observer.inputs`."""
        for name, sample in samples.items():
            self.rows[name] = self.rows.get(name, 0) + sample.rows
        for block in self.blocks:
            if any(use.block.name in samples for use in block.uses):
                self._add(block.name, self.curvature.inputs(block, samples))

    def output_gradients(self, samples: Samples, passed: int) -> None:
        """See `Observer.output_gradients`."""
        for block in self.blocks:
            if any(use.block.name in samples for use in block.uses):
                known = self.averages.get(block.name, {})
                self._add(block.name, self.curvature.output_gradients(block, samples, passed, known))

    def averaged(self, examples: int) -> dict[str, State]:
        """The statistics of all batches; blocks that no backward pass has reached are left out. The sums are gone."""
        count = Count(max(1, examples), self.rows)
        found = {
            block.name: self.curvature.average(block, self.sums[block.name], count)
            for block in self.blocks
            if block.name in self.sums
        }
        self.sums, self.rows = {}, {}
        return {name: state for name, state in found.items() if state}

    def _add(self, name: str, sums: State) -> None:
        held = self.sums.setdefault(name, {})
        for key, value in sums.items():
            held[key] = held[key].add_(value) if key in held else value
