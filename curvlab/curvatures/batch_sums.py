"""BatchSums: the sums of one curvature over the batches of one step, or over a whole pass over the data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from curvlab.capture.batch_record import Samples
from curvlab.curvatures.blocks import PreconditionerBlock, using
from curvlab.curvatures.curvature import Count, Curvature, State
from curvlab.curvatures.kept_rows import AS_THEY_ARE


class BatchSums:
    """An observer that adds up the sums of one recipe.

    Args:
        curvature: the recipe.
        blocks: whose sums.
        averages: block name -> averages so far, which some recipes measure against (EKFAC's basis).
        dtype: of sums over several batches; a sum of one batch alone keeps the type it came in until it is averaged.
            None adds in the type of the first.

    Attributes:
        sums: block name -> statistic -> sum.
        rows: layer name -> N·T so far, without padding.
    """

    def __init__(
        self,
        curvature: Curvature,
        blocks: Sequence[PreconditionerBlock],
        averages: Mapping[str, State] | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.dtype = dtype
        self.curvature, self.blocks, self.averages = curvature, blocks, {} if averages is None else averages
        self.sums: dict[str, State] = {}
        self.rows: dict[str, int] = {}
        self._using = using(blocks)
        self._owned: dict[str, set[str]] = {}
        """Sums that may be added to: the first batch's can be its samples' own, which other observers see too."""

    def inputs(self, samples: Samples) -> None:
        """See `Observer.inputs`."""
        for name, sample in samples.items():
            self.rows[name] = self.rows.get(name, 0) + sample.rows
        for block in self._of(samples):
            self._add(block.name, self.curvature.inputs(block, samples))

    def output_gradients(self, samples: Samples, passed: int) -> None:
        """See `Observer.output_gradients`."""
        for block in self._of(samples):
            known = self.averages.get(block.name, {})
            self._add(block.name, self.curvature.output_gradients(block, samples, passed, known))

    def average_of(self, block: PreconditionerBlock, others: Sequence[BatchSums], examples: int) -> State | None:
        """The statistics of one block over the batches of this one and of others; None where nothing has reached it.

        No sum is changed: all of them can be read again.
        """
        both = BatchSums(self.curvature, (), dtype=self.dtype)
        for part in (self, *others):
            for layer, rows in part.rows.items():
                both.rows[layer] = both.rows.get(layer, 0) + rows
            if block.name in part.sums:
                both._add(block.name, part.sums[block.name])
        if block.name not in both.sums:
            return None
        state = self.curvature.average(block, both.sums[block.name], Count(max(1, examples), both.rows, self.dtype))
        return {key: self._converted(key, value) for key, value in state.items()} or None

    def averaged(self, examples: int) -> dict[str, State]:
        """The statistics of all batches; blocks that no backward pass has reached are left out. The sums are gone."""
        count = Count(max(1, examples), self.rows, self.dtype)
        found = {
            # Taken out one by one, so that only one block's sums are held beside its average.
            block.name: self.curvature.average(block, self.sums.pop(block.name), count)
            for block in self.blocks
            if block.name in self.sums
        }
        self.sums, self.rows, self._owned = {}, {}, {}
        return {
            name: {key: self._converted(key, value) for key, value in state.items()}
            for name, state in found.items()
            if state
        }

    def _of(self, samples: Samples) -> Iterator[PreconditionerBlock]:
        """The blocks that use any of these layers, each once."""
        found = (block for layer in samples for block in self._using.get(layer, ()))
        yield from {block.name: block for block in found}.values()

    def _add(self, name: str, sums: State) -> None:
        if not sums:
            return
        held = self.sums.setdefault(name, {})
        own = self._owned.setdefault(name, set())
        shared = [key for key in sums if key in held]
        for key in shared:
            converted = self._converted(key, held[key])
            if converted is not held[key]:
                held[key] = converted
                own.add(key)
        self.curvature.add(held, sums, own)
        own.update(shared)

    def _converted(self, key: str, value: Tensor) -> Tensor:
        return value if key.endswith(AS_THEY_ARE) else value.to(self.dtype or value.dtype)
