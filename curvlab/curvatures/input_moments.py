"""Input moments: μ = 1/(NT) Σ a and M = 1/(NT) Σ aaᵀ of what a layer is fed, without the 1 of the bias (LNB, eq.
12)."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import ClassVar

from torch import Tensor

from curvlab.capture.batch_record import Samples
from curvlab.capture.sample import Sample
from curvlab.capture.survey import Survey
from curvlab.curvatures.blocks import PreconditionerBlock, all_matrices
from curvlab.curvatures.curvature import Count, Curvature, State
from curvlab.curvatures.kept_rows import add_rows_or_square, averaged, operator_of, rows_of
from curvlab.operators.operator import Operator

ROWS = rows_of("second")


class InputMoments(Curvature):
    """The mean and the second moment of every layer's input.

    Args:
        keep_rows: keep the inputs themselves while they are fewer than the features.
    """

    name = "input-moments"
    of_inputs: ClassVar[bool] = True
    holds_inputs: ClassVar[bool] = False
    contents: ClassVar[str | None] = "the input factor"
    largest: ClassVar[int | None] = None
    fisher_type = "forward-only"

    def __init__(self, keep_rows: bool = False) -> None:
        self.keep_rows = keep_rows

    def blocks(self, found: Survey | None, parameters: Mapping[str, Tensor]) -> list[PreconditionerBlock]:
        """Every layer."""
        return all_matrices(found)

    def inputs(self, block: PreconditionerBlock, samples: Samples) -> State:
        """Σ a, and Σ aaᵀ (upper triangle), its diagonal where the rest is zero, or the rows a."""
        sample = samples[block.name]
        if self.keep_rows and not one_hot(sample) and sample.rows < sample.layer.in_features:
            rows = sample.counted(sample.features)
            return {"mean": rows.sum(1), ROWS: rows}
        moments = sample.feature_moments()
        total = moments.total.clone() if moments.diagonal else moments.total  # of one-hot inputs both are one tensor
        return {"mean": total, "second": moments.second}

    def add(self, held: State, fresh: State, own: Container[str]) -> None:
        """See `Curvature.add`."""
        add_rows_or_square(held, fresh, "second", own)
        super().add(held, {"mean": fresh["mean"]}, own)

    def average(self, block: PreconditionerBlock, sums: State, count: Count) -> State:
        """μ and M over rows."""
        rows = count.rows[block.name]
        if rows == 0:  # all of them are padding
            return {}
        mean = sums["mean"].to(count.dtype or sums["mean"].dtype) / rows
        if ROWS in sums:  # as they are: whoever looks at single features wants the inputs themselves
            return {"mean": mean, ROWS: sums[ROWS]}
        return {"mean": mean, **averaged(sums, "second", rows, count.dtype)}

    def operator(self, block: PreconditionerBlock, state: State) -> Operator | None:
        """M in the form it is kept in; the rows of a LowRank are the inputs themselves."""
        return operator_of(state, "second", 1 / state[ROWS].shape[1] if ROWS in state else 1.0)

    def bytes(self, block: PreconditionerBlock) -> int:
        """M with the bias's row and column, or its diagonal."""
        groups, _, width = block.shape
        return 8 * groups * (width if block.uses[0].block.layer.kind == "Embedding" else width**2)


def one_hot(sample: Sample) -> bool:
    """Whether inputs are one-hot: their second moment is a diagonal, smaller than any of the rows."""
    return sample.layer.kind == "Embedding"
