"""Block Fisher: (F_l + λI)⁻¹ per layer with the exact block F_l = 1/N Σ vec(DW_n) vec(DW_n)ᵀ (ren 4.3.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from curvlab.capture.sample import Sample, per_example_gradients
from curvlab.capture.survey import Survey
from curvlab.curvatures.curvature import Batch, Curvature, Source, State, Unit
from curvlab.curvatures.kfac import invert
from curvlab.errors import MemoryBudgetError
from curvlab.operators.gram import mirrored, upper_gram
from curvlab.operators.operator import Dense, Operator


class BlockFisherCurvature(Curvature):
    """Exact dense blocks.

    Args:
        source: "pseudo" or "data".
        max_memory: bytes that all blocks may take; the error says how many they would.
    """

    def __init__(self, source: Source = "pseudo", max_memory: int = 2 * 2**30) -> None:
        self.source, self.max_memory = source, max_memory

    def units(self, found: Survey | None, parameters: Mapping[str, Tensor]) -> list[Unit]:
        """One per block that shares no parameter with another.

        Raises:
            MemoryBudgetError: the blocks do not fit.
        """
        units = []
        for block in found.blocks.values() if found is not None else ():
            if not block.tied:
                layer = block.layer
                shape = (layer.groups, layer.height, layer.width + layer.biased)
                units.append(Unit(block.name, block, None, dict(block.parameters), shape))
        # The average, the inverse, and the batch's own while it is blended.
        needed = sum(3 * 4 * unit.block.size**2 for unit in units if unit.block is not None)
        if needed > self.max_memory:
            raise MemoryBudgetError(
                f"the exact Fisher blocks of this model take {needed / 2**30:.1f} GiB",
                f"the budget is {self.max_memory / 2**30:.1f} GiB",
                "raise max_memory, or use kfac",
            )
        return units

    def measure(self, unit: Unit, sample: Sample, state: State) -> State:
        """Σ vec vecᵀ."""
        rows = per_example_gradients(sample.layer, sample.features, sample.signals).flatten(1)
        return {"fisher": upper_gram(rows)}

    def average(self, unit: Unit, sums: State, batch: Batch) -> State:
        """F."""
        return {"fisher": mirrored(sums["fisher"] / batch.examples)}

    def operators(
        self, units: Sequence[Unit], states: Sequence[State], settings: Sequence[Mapping[str, Any]]
    ) -> list[Operator | None]:
        """(F + λI)⁻¹."""
        return invert([Dense(state["fisher"]) for state in states], settings)
