"""Gradient moments: G = 1/(NT) Σ_n Σ_t ggᵀ of the gradients at a layer's outputs, K-FAC's second factor (Ren 2022, Alg.
7, 12)."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from curvlab.capture.batch_record import Samples
from curvlab.capture.survey import Survey
from curvlab.curvatures.blocks import PreconditionerBlock, all_matrices
from curvlab.curvatures.curvature import Count, Curvature, State
from curvlab.curvatures.kept_rows import add_rows_or_square, averaged, operator_of, rows_or_square
from curvlab.curvatures.room import Kept
from curvlab.operators.operator import Operator
from curvlab.statistics.sample_rows import gradient_rows


class GradientMoments(Curvature):
    """The second moment of the gradients at every layer's outputs; several backward passes of a batch add up.

    Args:
        fisher_type: targets of the output gradients.
        mc_samples: sampled targets per example.
        keep_rows: keep the gradients themselves while they are fewer than the outputs.
    """

    name = "gradient-moments"
    holds_inputs: ClassVar[bool] = False
    contents: ClassVar[str | None] = "the gradient factor"
    largest: ClassVar[int | None] = None

    def __init__(self, fisher_type: str = "mc", mc_samples: int = 1, keep_rows: bool = False) -> None:
        self.fisher_type, self.mc_samples, self.keep_rows = fisher_type, mc_samples, keep_rows

    def blocks(self, found: Survey | None, parameters: Mapping[str, Tensor]) -> list[PreconditionerBlock]:
        """Every layer."""
        return all_matrices(found)

    def output_gradients(self, block: PreconditionerBlock, samples: Samples, passed: int, averages: State) -> State:
        """Σ ggᵀ (upper triangle), or the rows g."""
        sample = samples.get(block.name)
        if sample is None:
            return {}
        layer = sample.layer
        few = self.keep_rows and sample.rows < layer.out_features
        if few or (layer.groups == 1 and not self.room.square(layer.out_features)):
            return rows_or_square("gradient", gradient_rows(sample), self.room)
        return {"gradient": sample.output_gradient_moment}

    def add(self, held: State, fresh: State, own: Container[str]) -> None:
        """See `Curvature.add`."""
        add_rows_or_square(held, fresh, "gradient", own, self.room)

    def average(self, block: PreconditionerBlock, sums: State, count: Count) -> State:
        """G over rows, however many passes were made over them."""
        rows = count.rows[block.name]
        return averaged(sums, "gradient", rows, count.dtype) if sums and rows else {}

    def operator(self, block: PreconditionerBlock, state: State) -> Operator | None:
        """G in the form it is kept in."""
        return operator_of(state, "gradient")

    def bytes(self, block: PreconditionerBlock) -> int:
        """G."""
        groups, outputs, _ = block.shape
        return 8 * groups * outputs**2

    def kept(self, block: PreconditionerBlock, examples: int | None, passes: int, number: int) -> Sequence[Kept]:
        """G, or the rows that stand for it."""
        groups, outputs, _ = block.shape
        rows = None if examples is None else examples * block.uses[0].block.positions * passes
        return (self.room.kept(outputs, rows if self.keep_rows else None, number, groups=groups),)
