"""Input moments: μ = 1/(NT) Σ a and M = 1/(NT) Σ aaᵀ of what a layer is fed, without the 1 of the bias (LNB, eq.
12)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from curvlab.capture.batch_record import Samples
from curvlab.capture.survey import Survey
from curvlab.curvatures.blocks import PreconditionerBlock, matrix_block
from curvlab.curvatures.curvature import Count, Curvature, State
from curvlab.linalg.gram import mirrored
from curvlab.operators.operator import Operator


class InputMoments(Curvature):
    """The mean and the second moment of every layer's input.

    Attributes:
        counts: layer name -> N·T of the average that was made last.
    """

    fisher_type = "forward-only"

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def blocks(self, found: Survey | None, parameters: Mapping[str, Tensor]) -> list[PreconditionerBlock]:
        """Every layer."""
        return [matrix_block(block) for block in (found.blocks.values() if found is not None else ())]

    def inputs(self, block: PreconditionerBlock, samples: Samples) -> State:
        """Σ a and Σ aaᵀ (upper triangle), or its diagonal where the rest is zero."""
        moments = samples[block.name].feature_moments()
        total = moments.total.clone() if moments.diagonal else moments.total  # of one-hot inputs both are one tensor
        return {"mean": total, "second": moments.second}

    def average(self, block: PreconditionerBlock, sums: State, count: Count) -> State:
        """μ and M over rows."""
        rows = self.counts[block.name] = count.rows[block.name]
        second = sums["second"] / rows
        return {"mean": sums["mean"] / rows, "second": second if second.ndim == 2 else mirrored(second)}

    def operators(
        self, blocks: Sequence[PreconditionerBlock], states: Sequence[State], settings: Sequence[Mapping[str, Any]]
    ) -> list[Operator | None]:
        """None: LNB solves with M without inverting it."""
        return [None] * len(blocks)
