"""F_l: the exact Fisher blocks averaged along the way, β = 0.9: the metric that directions are measured in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from curvlab.capture.batch_record import BatchRecord
from curvlab.capture.survey import Survey
from curvlab.curvatures.batch_sums import BatchSums
from curvlab.curvatures.block_fisher import BlockFisherCurvature, fisher
from curvlab.curvatures.blocks import PreconditionerBlock
from curvlab.curvatures.curvature import State
from curvlab.errors import MemoryBudgetError
from curvlab.operators.operator import Operator
from curvlab.operators.product import product
from curvlab.optim.block_fisher import BlockFisher
from curvlab.shapes import Float

DECAY = 0.9


class FisherAverage:
    """Exact blocks F_l = 1/N Σ vec(DW_n) vec(DW_n)ᵀ, taken from a BlockFisher where one is running, else measured here.

    Args:
        model: the network.
        running: the optimizer whose averages these are, or None.
        max_memory: bytes for the blocks measured here.

    Attributes:
        missing: why there are none; None while there are.
    """

    def __init__(self, model: nn.Module, running: BlockFisher | None, max_memory: int = 2 * 2**30) -> None:
        self.model, self.running = model, running
        self.missing: str | None = None
        self._curvature = BlockFisherCurvature(max_memory=max_memory)
        self._blocks: list[PreconditionerBlock] = []
        self._states: dict[str, State] = {}
        self._examples = 0

    def expect(self, batches: int) -> None:
        """So many batches will be averaged with equal weights, all of them kept where that is smaller than d²."""
        for curvature in (self._curvature, None if self.running is None else self.running.curvature):
            if isinstance(curvature, BlockFisherCurvature):
                curvature.batches = batches

    def add(self, record: BatchRecord, found: Survey | None, mean: bool = False) -> None:
        """A batch joins the averages, x ← βx + (1 − β)x_new; with `mean`, a running mean over examples."""
        if self.running is not None or self.missing is not None:
            return
        if not self._blocks:
            trainable = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
            self._blocks = self._curvature.blocks(found, trainable)
        self._examples += record.examples
        weight = 1 - record.examples / self._examples if mean else DECAY
        sums = BatchSums(self._curvature, self._blocks, self._states)
        try:
            with torch.no_grad():
                record.replay(sums)
                for name, fresh in sums.averaged(record.examples).items():
                    self._states[name] = self._curvature.merge(self._states.get(name, {}), fresh, weight)
        except MemoryBudgetError as error:
            self.missing, self._states = str(error), {}

    def blocks(self) -> dict[str, tuple[PreconditionerBlock, Operator]]:
        """Layer -> its block and F_l."""
        blocks = self._blocks if self.running is None else self.running.blocks
        states: Mapping[str, State] = self._states if self.running is None else self.running.averages
        return {one.name: (one, fisher(states[one.name])) for one in blocks if states.get(one.name)}


def products(
    unit: PreconditionerBlock, block: Operator, directions: Sequence[Mapping[str, Tensor]]
) -> Float[Tensor, "k k"]:
    """p_iᵀ F_l p_j in float64 for k directions of one layer."""
    rows = torch.stack([unit.assemble(one).flatten() for one in directions])
    # Directions are of very different lengths: of length one they keep float32's range.
    lengths = rows.norm(dim=1, keepdim=True)
    rows = rows / lengths.clamp(min=torch.finfo(rows.dtype).tiny)
    gram = rows.double() @ product(block, rows).double().mT
    scaled: Tensor = gram * lengths.double() * lengths.double().mT
    return scaled
