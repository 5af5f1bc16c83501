"""Σ_n (Q_Gᵀ DW_n Q_A)²: second moments of the per-example gradients in a Kronecker basis (EKFAC, Ren 2022, section
1.1)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from curvlab.capture.sample import Sample
from curvlab.linalg.grouped_product import grouped_product
from curvlab.shapes import Float
from curvlab.statistics.squared_gradients import squared_products


def rotated_squares(
    sample: Sample, gradient_basis: Float[Tensor, "g o o"], input_basis: Float[Tensor, "g j j"]
) -> Float[Tensor, "g o j"]:
    """S[g] = Σ_n (Q_Gᵀ DW_n Q_A)², elementwise; j = i + 1 where the layer is biased.

    Features and output gradients are rotated, not gradients.
    """
    features = F.pad(sample.features, (0, 1), value=1.0) if sample.layer.biased else sample.features
    a = grouped_product(features.flatten(1, 2), input_basis)
    g = grouped_product(sample.output_gradients.flatten(1, 2), gradient_basis)
    return squared_products(g.view(sample.output_gradients.shape), a.view(features.shape))
