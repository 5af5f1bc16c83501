"""Eigenbases of K-FAC's factors: A = Q_A diag(λ) Q_Aᵀ and G = Q_G diag(λ) Q_Gᵀ, as EKFAC and influence functions use
them."""

from __future__ import annotations

import torch
from torch import Tensor

from curvlab.errors import NumericalError
from curvlab.factor_files.expected_shapes import VALUES, VECTORS
from curvlab.factor_files.layer_factors import LayerFactors
from curvlab.linalg.eigh import safe_eigh
from curvlab.linalg.float64 import double
from curvlab.operators.matrix import matrix
from curvlab.operators.operator import Diagonal, Grouped, LowRank, Operator
from curvlab.operators.spectrum import rounding
from curvlab.quoting import quoted


def eigenbases(factors: LayerFactors) -> dict[str, Tensor]:
    """Eigenvalues `[g, k]`, ascending, and eigenvectors `[g, d, k]` of both factors, by their names in a file.

    A diagonal factor has the identity for its basis, and nothing is stored. Of fewer rows than columns only the range
    is there, k < d: all other eigenvalues are zero.

    Raises:
        NumericalError: a factor is not finite.
    """
    found: dict[str, Tensor] = {}
    for side, operator in (("input", factors.input_operator), ("gradient", factors.gradient_operator)):
        if operator is None or isinstance(operator, Diagonal):
            continue
        values, vectors = _eigh(operator)
        if not bool(values.isfinite().all()):
            raise NumericalError(f"the {side} factor of {quoted(factors.shape.name)} is not finite")
        found |= {side + VALUES: values, side + VECTORS: vectors}
    return found


def _eigh(operator: Operator) -> tuple[Tensor, Tensor]:
    if isinstance(operator, LowRank) and bool(operator.rows.isfinite().all()):
        _, roots, vectors = torch.linalg.svd(double(operator.rows), full_matrices=False)
        values = operator.scale * roots.square()
        kept = values > rounding(operator.size, len(operator.rows)) * values.max()
        return values[kept].flip(0)[None], vectors[kept].flip(0).mT[None]
    solved = safe_eigh(double(operator.stack) if isinstance(operator, Grouped) else matrix(operator)[None])
    return solved.values.where(solved.ok[:, None], torch.nan), solved.vectors
