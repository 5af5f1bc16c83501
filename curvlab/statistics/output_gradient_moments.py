"""Moments of output gradients: G = 1/(NT) Σ_n Σ_t ggᵀ, the gradient-based K-FAC factor of "expand", and both factors of
"reduce".

Sources: Ren 2022, Alg. 7 and 12, Grosse 2021, section 5; scale: docs/curvature.md.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from curvlab.capture.sample import Sample
from curvlab.linalg.gram import mirrored, upper_gram
from curvlab.shapes import Float
from curvlab.statistics.running import RunningGram, RunningSum


class OutputGradientMoments:
    """Σ ggᵀ of one block; several backward passes over one batch (columns, samples) add up."""

    def __init__(self, keep_rows: bool = False) -> None:
        self.second = RunningGram(keep_rows)

    def update(self, sample: Sample) -> None:
        """Add one backward pass."""
        if self.second.fits(sample.rows, sample.layer.out_features):
            self.second.add_rows(sample.counted(sample.output_gradients))
        else:
            self.second.add(sample.output_gradient_moment)

    def merge(self, other: OutputGradientMoments) -> OutputGradientMoments:
        """The moments of both parts of the data."""
        merged = OutputGradientMoments()
        merged.second = self.second.merge(other.second)
        return merged

    def gradient_factor(self, rows: int) -> Float[Tensor, "g o o"]:
        """G; `rows` = N·T of the data, however many passes were made over it."""
        return self.second.mean(rows)


class ReducedMoments:
    """K-FAC "reduce": A = 1/N Σ_n ããᵀ with ã the mean of ā over t, G = 1/N Σ_n g̃g̃ᵀ with g̃ the sum of g over t."""

    def __init__(self) -> None:
        self.features, self.output_gradients = RunningSum(), RunningSum()

    def update_features(self, sample: Sample) -> None:
        """Add one forward pass."""
        reduced = sample.mean_features()
        self.features.add(upper_gram(F.pad(reduced, (0, 1), value=1.0) if sample.layer.biased else reduced))

    def update_output_gradients(self, sample: Sample) -> None:
        """Add one backward pass."""
        self.output_gradients.add(upper_gram(sample.output_gradients.sum(2)))

    def merge(self, other: ReducedMoments) -> ReducedMoments:
        """The moments of both parts of the data."""
        merged = ReducedMoments()
        merged.features, merged.output_gradients = (
            self.features.merge(other.features),
            self.output_gradients.merge(other.output_gradients),
        )
        return merged

    def input_factor(self, examples: int) -> Float[Tensor, "g j j"]:
        """A over N `examples`."""
        return mirrored(self.features.mean(examples))

    def gradient_factor(self, examples: int) -> Float[Tensor, "g o o"]:
        """G over N `examples`."""
        return mirrored(self.output_gradients.mean(examples))
