"""K-FAC's factors A = 1/N Σ_n Σ_t āāᵀ and G = 1/(NT) Σ_n Σ_t ggᵀ of a layer, in the form they are kept in (Ren 2022,
Alg. 7, 12)."""

from __future__ import annotations

import torch
from torch import Tensor

from curvlab.curvatures.data_average import BlockAverage
from curvlab.curvatures.metric import metric
from curvlab.layers.layer import Layer
from curvlab.operators.operator import Dense, Diagonal, Grouped, Operator
from curvlab.operators.scaled import scaled


def input_factor(inputs: BlockAverage, positions: float) -> Operator:
    """A = T·M with the bias's 1, T positions per example, from the averages of `InputMoments`."""
    layer = inputs.block.uses[0].block.layer
    assert inputs.operator is not None
    return scaled(metric(inputs.operator, inputs.state["mean"], layer.biased), positions)


def gradient_factor(layer: Layer, gradients: BlockAverage | None) -> Operator:
    """G from the averages of `GradientMoments`; the identity where no gradients were asked for."""
    if gradients is not None:
        assert gradients.operator is not None
        return gradients.operator
    ones = torch.ones(layer.groups, layer.out_features, dtype=torch.float64)
    return Diagonal(ones[0]) if layer.groups == 1 else Grouped(torch.diag_embed(ones))


def factor(matrices: Tensor) -> Operator:
    """The operator of one matrix per group `[g, d, d]`, or of their diagonals `[g, d]`."""
    if matrices.ndim == 2:
        return Diagonal(matrices.flatten())
    return Dense(matrices[0]) if matrices.shape[0] == 1 else Grouped(matrices)
