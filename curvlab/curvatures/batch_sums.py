"""BatchSums: the sums of one curvature over the batches of one step, or over a whole pass over the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from curvlab.capture.batch_record import Samples
from curvlab.curvatures.blocks import PreconditionerBlock
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
        self._owned: dict[str, set[str]] = {}
        """Sums that may be added to: the first batch's can be its samples' own, which other observers see too."""

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

    def merged(self, other: BatchSums) -> BatchSums:
        """The sums over the batches of both."""
        both = BatchSums(self.curvature, self.blocks, self.averages, self.dtype)
        for part in (self, other):
            for layer, rows in part.rows.items():
                both.rows[layer] = both.rows.get(layer, 0) + rows
            for name, sums in part.sums.items():
                both._add(name, sums)
        return both

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
