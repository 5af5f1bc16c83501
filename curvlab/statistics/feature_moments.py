"""Feature moments: μ = 1/(NT) Σ a, M = 1/(NT) Σ aaᵀ, and the K-FAC factor A = 1/N Σ_n Σ_t āāᵀ (docs/curvature.md)."""

from __future__ import annotations

import torch
from torch import Tensor

from curvlab.capture.sample import Sample
from curvlab.operators.operator import Operator
from curvlab.shapes import Float
from curvlab.statistics.running import RunningGram, RunningSum


class FeatureMoments:
    """Σ a and Σ aaᵀ of one block's features, streamed; features are without the bias's 1.

    Attributes:
        count: N·T so far.
    """

    def __init__(self, keep_rows: bool = False) -> None:
        self.count = 0
        self.total, self.second = RunningSum(), RunningGram(keep_rows)

    def update(self, sample: Sample) -> None:
        """Add one forward pass."""
        rows = sample.rows
        self.count += rows
        # One-hot rows have a diagonal Gram matrix, smaller than any of them; both forms in one sum would not add up.
        if sample.layer.kind != "Embedding" and self.second.fits(rows, sample.layer.in_features):
            features = sample.counted(sample.features)
            self.total.add(features.sum(1))
            self.second.add_rows(features)
        else:
            moments = sample.feature_moments()
            self.total.add(moments.total)
            self.second.add(moments.second)

    def merge(self, other: FeatureMoments) -> FeatureMoments:
        """The moments of both parts of the data."""
        merged = FeatureMoments()
        merged.count = self.count + other.count
        merged.total, merged.second = self.total.merge(other.total), self.second.merge(other.second)
        return merged

    def mean(self) -> Float[Tensor, "g i"]:
        """μ, float64."""
        return self.total.mean(self.count)

    def second_moment(self) -> Tensor:
        """M `[g, i, i]`, or its diagonal `[g, i]` where the rest is zero, float64."""
        return self.second.mean(self.count)

    def operator(self) -> Operator:
        """M in the form it is stored in."""
        return self.second.operator(self.count)

    def input_factor(self, examples: int, biased: bool) -> Float[Tensor, "g j j"]:
        """A = 1/N Σ āāᵀ = T·[[M, μ], [μᵀ, 1]] over N `examples`: with the bias's 1 appended when `biased`."""
        second = self.second_moment()
        if second.ndim == 2:
            second = torch.diag_embed(second)
        if biased:
            second = append_one(second, self.mean())
        return second * (self.count / examples)


def append_one(second: Float[Tensor, "g i i"], mean: Float[Tensor, "g i"]) -> Float[Tensor, "g j j"]:
    """[[M, μ], [μᵀ, 1]]: the second moment of ā = (a, 1)."""
    groups, width = mean.shape
    out = second.new_ones(groups, width + 1, width + 1)
    out[:, :width, :width] = second
    out[:, :width, width] = out[:, width, :width] = mean
    return out
