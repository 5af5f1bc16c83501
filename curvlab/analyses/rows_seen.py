"""RowsSeen: the rows that a pass over the data brings to each layer, and the bytes of sums that follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from curvlab.curvatures.blocks import PreconditionerBlock
from curvlab.curvatures.curvature import Curvature
from curvlab.curvatures.room import Kept


@dataclass(frozen=True)
class RowsSeen:
    """How much data there is.

    Attributes:
        examples: N, or None where it is not known.
        passes: backward passes over a batch; sampled targets, or columns of an exact expectation.
        number: bytes of a number of the network.
        halves: whether sums are kept for two halves.
    """

    examples: int | None
    passes: int = 1
    number: int = 4
    halves: bool = False

    def sums(self, curvature: Curvature, block: PreconditionerBlock) -> int:
        """What the sums of a block take until its spectra are made, those of both halves together."""
        parts = 2 if self._split(curvature) else 1
        return parts * sum(one.sums for one in self._kept(curvature, block, parts))

    def spectra(self, curvature: Curvature, block: PreconditionerBlock) -> tuple[int, int]:
        """What the averages of a block take beside the sums, and the most that is made for one spectrum."""
        whole = self._kept(curvature, block, 1)
        averages = sum(one.average for one in whole)
        if self._split(curvature):
            # The sum over both halves is made for it.
            averages += sum(one.sums for one in whole) + 2 * sum(one.average for one in self._kept(curvature, block, 2))
        return averages, max((one.spectrum for one in whole), default=0)

    def _split(self, curvature: Curvature) -> bool:
        return self.halves and curvature.halved and not curvature.of_batches

    def _kept(self, curvature: Curvature, block: PreconditionerBlock, parts: int) -> Sequence[Kept]:
        examples = None if self.examples is None else -(-self.examples // parts)
        return curvature.kept(block, examples, self.passes, self.number)
