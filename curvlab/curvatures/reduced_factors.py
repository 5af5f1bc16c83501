"""K-FAC's factors of "reduce" for display: A = 1/N Σ_n āāᵀ of features averaged over the positions of an example, G =
1/N Σ_n ggᵀ of gradients summed over them (docs/curvature.md)."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from curvlab.capture.batch_record import Samples
from curvlab.capture.sample import Sample
from curvlab.capture.survey import Survey
from curvlab.curvatures.blocks import PreconditionerBlock, all_matrices
from curvlab.curvatures.curvature import Count, Curvature, State
from curvlab.curvatures.kept_rows import add_rows_or_square, averaged, keys_of, rows_or_square
from curvlab.curvatures.room import Kept
from curvlab.layers.embedding import EmbeddingLayer
from curvlab.shapes import Float, Int
from curvlab.statistics.sample_rows import gradient_sums, indices


class ReducedFactors(Curvature):
    """A and G of every layer, norms' scales too, and each use of a shared weight by itself; a row for an example.

    Args:
        fisher_type: targets of the output gradients.
        mc_samples: sampled targets per example.
    """

    name = "kfac-factors"
    holds_inputs: ClassVar[bool] = False
    contents: ClassVar[str | None] = "K-FAC's factors"
    largest: ClassVar[int | None] = None

    def __init__(self, fisher_type: str = "mc", mc_samples: int = 1) -> None:
        self.fisher_type, self.mc_samples = fisher_type, mc_samples

    def recipe(self) -> dict[str, str | float]:
        """See `Curvature.recipe`."""
        return {"kfac_approx": "reduce", "fisher_type": self.fisher_type}

    def blocks(self, found: Survey | None, parameters: Mapping[str, Tensor]) -> list[PreconditionerBlock]:
        """Every layer."""
        return all_matrices(found)

    def inputs(self, block: PreconditionerBlock, samples: Samples) -> State:
        """Rows ã, with the 1 of a bias, or Σ ããᵀ."""
        sample = samples[block.name]
        if isinstance(sample.layer, EmbeddingLayer):
            shares, tokens = _token_shares(sample)
            return rows_or_square("input", shares, self.room, tokens, sample.layer.in_features)
        rows = sample.mean_features()
        rows = F.pad(rows, (0, 1), value=1.0) if sample.layer.biased else rows
        return rows_or_square("input", rows, self.room)

    def output_gradients(self, block: PreconditionerBlock, samples: Samples, passed: int, averages: State) -> State:
        """Rows Σ_t g[n,t], or the sum of their products."""
        sample = samples.get(block.name)
        return {} if sample is None else rows_or_square("gradient", gradient_sums(sample), self.room)

    def add(self, held: State, fresh: State, own: Container[str]) -> None:
        """See `Curvature.add`."""
        for key in keys_of(fresh):
            add_rows_or_square(held, fresh, key, own, self.room)

    def average(self, block: PreconditionerBlock, sums: State, count: Count) -> State:
        """A and G over examples; layers that no gradient reaches have A alone."""
        state: State = {}
        for key in keys_of(sums):
            state |= averaged(sums, key, count.examples, count.dtype)
        return state

    def bytes(self, block: PreconditionerBlock) -> int:
        """A and G."""
        groups, outputs, inputs = block.shape
        return 8 * groups * (outputs**2 + inputs**2)

    def kept(self, block: PreconditionerBlock, examples: int | None, passes: int, number: int) -> Sequence[Kept]:
        """A and G, or the rows that stand for them."""
        groups, outputs, inputs = block.shape
        rows = None if examples is None else examples * passes
        return self.room.kept(inputs, examples, groups=groups), self.room.kept(outputs, rows, groups=groups)


def _token_shares(sample: Sample) -> tuple[Float[Tensor, "1 n s"], Int[Tensor, " s"]]:
    """The mean of one-hot features over the positions of an example that count, for the tokens that were seen."""
    positions = sample.positions if sample.mask is None else sample.mask.sum(1).clamp(min=1)[:, None]
    calls = [indices(call, sample.examples) for call in sample.calls]
    columns: Tensor = torch.cat([places.flatten() for places, _ in calls]).unique()  # type: ignore[no-untyped-call]
    shares = torch.zeros(sample.examples, len(columns), dtype=sample.dtype, device=columns.device)
    for places, counted in calls:
        ones = torch.ones_like(places, dtype=sample.dtype) if counted is None else counted.to(sample.dtype)
        shares.scatter_add_(1, torch.searchsorted(columns, places.contiguous()), ones)
    return (shares / positions)[None], columns
