"""Curvature statistics of a model on data, layer by layer, in the scale of docs/curvature.md: N examples, T
positions.

    A = 1/N Σ_n Σ_t āāᵀ      G = 1/(NT) Σ_n Σ_t ggᵀ      F = 1/N Σ_n vec(DW_n) vec(DW_n)ᵀ

`x, y` are tensors (one batch), or x is a loader of (inputs, targets) and y is None. For `fisher_type` "type-2" and
"empirical" the results are deterministic; "mc" draws its pseudo-targets from `seed`. The model's mode (train or eval)
is respected, dropout is drawn from `seed` too, and parameters, buffers, gradients and the global random state are left
as they were. Names are those of the model's modules, in the model's order.

Targets of shape (examples, positions) beside outputs (examples, positions, classes) mean that the classes are last, as
in language models. Without targets the classes are on axis 1; `Categorical(class_axis=-1)` says otherwise.
"""

from __future__ import annotations

from curvlab.curvature.gauss_newton import ggn_product
from curvlab.curvature.layer_statistics import block_fisher, feature_moments, kfac_factors, tensor_normal_factors
from curvlab.curvature.one_pass import batches_of
from curvlab.curvature.results import FeatureStatistics, KroneckerFactors, TensorFactors

__all__ = [
    "FeatureStatistics",
    "KroneckerFactors",
    "TensorFactors",
    "batches_of",
    "block_fisher",
    "feature_moments",
    "ggn_product",
    "kfac_factors",
    "tensor_normal_factors",
]
