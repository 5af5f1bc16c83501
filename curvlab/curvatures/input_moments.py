"""Input moments: μ = 1/(NT) Σ a and M = 1/(NT) Σ aaᵀ of what a layer is fed, without the 1 of the bias (LNB, eq.
12)."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from curvlab.capture.batch_record import Samples
from curvlab.capture.survey import Survey
from curvlab.curvatures.blocks import PreconditionerBlock, all_matrices
from curvlab.curvatures.curvature import Count, Curvature, State
from curvlab.curvatures.kept_rows import add_rows_or_square, averaged, operator_of, rows_or_square
from curvlab.curvatures.room import Kept
from curvlab.layers.embedding import EmbeddingLayer
from curvlab.operators.operator import LowRank, Operator
from curvlab.operators.sketch import Sketch
from curvlab.statistics.sample_rows import feature_rows, one_hot


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
        layer = sample.layer
        wide = layer.groups == 1 and not self.room.square(layer.in_features)
        few = self.keep_rows and sample.rows < layer.in_features
        if not one_hot(sample) and (few or wide):
            rows = feature_rows(sample)
            mean = rows.sum(1, dtype=sample.dtype)
            # A sketch of the features says nothing of their mean: the bias's 1 is sketched with them.
            rows = F.pad(rows, (0, 1), value=1.0) if wide and layer.biased else rows
            return {"mean": mean, **rows_or_square("second", rows, self.room)}
        moments = sample.feature_moments()
        total = moments.total.clone() if moments.diagonal else moments.total  # of one-hot inputs both are one tensor
        return {"mean": total, "second": moments.second}

    def add(self, held: State, fresh: State, own: Container[str]) -> None:
        """See `Curvature.add`."""
        add_rows_or_square(held, fresh, "second", own, self.room)
        super().add(held, {"mean": fresh["mean"]}, own)

    def average(self, block: PreconditionerBlock, sums: State, count: Count) -> State:
        """μ and M over rows."""
        rows = count.rows[block.name]
        if rows == 0:  # all of them are padding
            return {}
        mean = sums["mean"].to(count.dtype or sums["mean"].dtype) / rows
        return {"mean": mean, **averaged(sums, "second", rows, count.dtype)}

    def operator(self, block: PreconditionerBlock, state: State) -> Operator | None:
        """M in the form it is kept in; the rows of a LowRank are the inputs themselves."""
        found, width = operator_of(state, "second"), block.uses[0].block.layer.in_features
        if not isinstance(found, LowRank) or found.size == width:
            return found
        rows = found.rows[:, :width]
        if isinstance(found, Sketch):
            return Sketch(rows, found.scale, found.lost, found.energy[:width], found.rows[:, width])
        return LowRank(rows, found.scale)

    def bytes(self, block: PreconditionerBlock) -> int:
        """M with the bias's row and column, or its diagonal."""
        groups, _, width = block.shape
        return 8 * groups * (width if isinstance(block.uses[0].block.layer, EmbeddingLayer) else width**2)

    def kept(self, block: PreconditionerBlock, examples: int | None, passes: int, number: int) -> Sequence[Kept]:
        """M, its diagonal, or the rows that stand for it."""
        layer, positions = block.uses[0].block.layer, block.uses[0].block.positions
        if isinstance(layer, EmbeddingLayer):
            return (Kept(16 * layer.in_features, 16 * layer.in_features, 64 * layer.in_features),)
        rows = None if examples is None or not self.keep_rows else examples * positions
        # Normalising makes a matrix each of the same size, one after another.
        return (self.room.kept(layer.in_features, rows, number, groups=layer.groups, matrices=6),)
