"""Σ_n (Q_Gᵀ DW_n Q_A)²: second moments of the per-example gradients in a Kronecker basis (EKFAC, Ren 2022, section
1.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from curvlab.capture.sample import Sample
from curvlab.linalg.flushed import flushed
from curvlab.linalg.grouped_product import grouped_product
from curvlab.shapes import Float

CHUNK = 2**24
"""Entries of per-example gradients formed at a time."""


def rotated_squares(
    sample: Sample, gradient_basis: Float[Tensor, "g o o"], input_basis: Float[Tensor, "g j j"]
) -> Float[Tensor, "g o j"]:
    """S[g] = Σ_n (Q_Gᵀ DW_n Q_A)², elementwise; j = i + 1 where the layer is biased.

    Features and output gradients are rotated, not gradients. At one position DW_n is a single outer product and S the
    product ((g Q_G)²)ᵀ ((ā Q_A)²); at several the rotated gradients are formed, some examples at a time.
    """
    features = F.pad(sample.features, (0, 1), value=1.0) if sample.layer.biased else sample.features
    a = grouped_product(features.flatten(1, 2), input_basis)
    g = grouped_product(sample.output_gradients.flatten(1, 2), gradient_basis)
    if sample.positions == 1:
        small = torch.finfo(a.dtype).tiny ** 0.5
        return flushed(grouped_product(flushed(g.square(), small).mT, flushed(a.square(), small)))
    a, g = a.view(features.shape), g.view(sample.output_gradients.shape)
    total = g.new_zeros(a.shape[0], g.shape[-1], a.shape[-1])
    step = max(1, CHUNK // total.numel())
    for start in range(0, a.shape[1], step):
        rows = slice(start, start + step)
        total += (g[:, rows].mT @ a[:, rows]).square_().sum(1)
    return total
