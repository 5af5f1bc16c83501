"""K-FAC's factors A = 1/N Σ_n Σ_t āāᵀ and G = 1/(NT) Σ_n Σ_t ggᵀ of a layer, in the form they are kept in (Ren 2022,
Alg. 7, 12)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from curvlab.curvatures.curvature import Curvature
from curvlab.curvatures.data_average import BlockAverage
from curvlab.curvatures.gradient_moments import GradientMoments
from curvlab.curvatures.input_moments import InputMoments
from curvlab.curvatures.kept_rows import holds, of_groups, operator_of
from curvlab.curvatures.metric import metric
from curvlab.curvatures.reduced_factors import ReducedFactors
from curvlab.layers.layer import Layer
from curvlab.linalg.float64 import double
from curvlab.operators.operator import Diagonal, Grouped, Operator
from curvlab.operators.scaled import scaled


def recipes(kfac_approx: str, fisher_type: str = "mc", mc_samples: int = 1) -> Sequence[Curvature]:
    """What must be averaged: for "expand" moments of inputs, which other analyses read too, and of gradients."""
    if kfac_approx == "reduce":
        return (ReducedFactors(fisher_type, mc_samples),)
    return InputMoments(keep_rows=True), GradientMoments(fisher_type, mc_samples, keep_rows=True)


def kronecker_factors(averages: Sequence[BlockAverage | None], positions: float) -> tuple[Operator, Operator | None]:
    """A with the bias's 1, and G; None for G where no gradient came.

    Args:
        averages: of one layer, by each of the `recipes`; the first is there.
        positions: T, rows per example.
    """
    inputs, gradients = averages[0], averages[-1]
    assert inputs is not None
    if isinstance(inputs.curvature, ReducedFactors):
        g = operator_of(inputs.state, "gradient") if holds(inputs.state, "gradient") else None
        return operator_of(inputs.state, "input"), g
    layer = inputs.block.uses[0].block.layer
    assert inputs.operator is not None
    a = scaled(metric(inputs.operator, inputs.state["mean"], layer.biased), positions)
    return a, None if gradients is None else gradients.operator


def identity_factor(layer: Layer) -> Operator:
    """G where no gradients are asked for."""
    ones = _numbers(layer).new_ones(layer.groups, layer.out_features)
    return Diagonal(ones[0]) if layer.groups == 1 else Grouped(torch.diag_embed(ones))


def zero_factor(layer: Layer) -> Operator:
    """G of a layer that no gradient reaches."""
    if layer.groups == 1:
        return Diagonal(_numbers(layer).new_zeros(layer.out_features))
    return of_groups(_numbers(layer).new_zeros(layer.groups, layer.out_features, layer.out_features))


def _numbers(layer: Layer) -> torch.Tensor:
    """No numbers, in float64, where the layer's parameters are."""
    return double(next(iter(layer.parameters.values())).detach().new_zeros(0))
