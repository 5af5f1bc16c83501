"""X ← aX + (bXXᵀ + c(XXᵀ)²)X from X = G/‖G‖_F, k times: U S' Vᵀ of G = U S Vᵀ with S' near I (Jordan et al. 2024)."""

from __future__ import annotations

import torch
from torch import Tensor

from curvlab.shapes import Float

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""a, b, c: steep at zero, so that small singular values grow fast; S' then lies in about [0.7, 1.2], not at 1."""
SMALLEST = 1e-7
"""A norm below this is not divided by."""


def newton_schulz(matrix: Float[Tensor, "m n"], iterations: int, dtype: torch.dtype) -> Float[Tensor, "m n"]:
    """The iteration in `dtype`, on the side of the matrix that is shorter; the result is of that type.

    Args:
        matrix: G.
        iterations: k; five are usual.
        dtype: bfloat16 is what the method is made for: the result need not be exact.
    """
    a, b, c = COEFFICIENTS
    x = matrix.to(dtype)
    tall = matrix.shape[0] > matrix.shape[1]
    x = x.mT if tall else x
    x = x / x.norm().clamp(min=SMALLEST)
    for _ in range(iterations):
        gram = x @ x.mT
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
