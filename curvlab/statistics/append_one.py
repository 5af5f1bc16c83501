"""[[M, μ], [μᵀ, 1]]: the second moment of ā = (a, 1), a feature with the 1 of a bias."""

from __future__ import annotations

from torch import Tensor

from curvlab.shapes import Float


def append_one(second: Float[Tensor, "g i i"], mean: Float[Tensor, "g i"]) -> Float[Tensor, "g j j"]:
    """[[M, μ], [μᵀ, 1]] from M = E[aaᵀ] and μ; of sums, the caller puts the number of rows in the last corner."""
    groups, width = mean.shape
    out = second.new_ones(groups, width + 1, width + 1)
    out[:, :width, :width] = second
    out[:, :width, width] = out[:, width, :width] = mean
    return out
