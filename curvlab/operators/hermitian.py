"""[[Re H, −Im H], [Im H, Re H]]: a complex Hermitian matrix as a real symmetric one of twice the size.

Sums, products, inverses and roots of these are those of the complex matrices, and every eigenvalue stands twice.
"""

from __future__ import annotations

import torch
from torch import Tensor

from curvlab.shapes import Float, Inexact


def embedded(matrix: Inexact[Tensor, "d d"]) -> Float[Tensor, "e e"]:
    """The real symmetric matrix; a real one as it is."""
    if not matrix.is_complex():
        return matrix
    re, im = matrix.real, matrix.imag
    return torch.cat([torch.cat([re, -im], dim=1), torch.cat([im, re], dim=1)])


def extracted(matrix: Float[Tensor, "e e"]) -> Inexact[Tensor, "d d"]:
    """The complex matrix of d = e/2 rows that `embedded` gave."""
    d = len(matrix) // 2
    return torch.complex(matrix[:d, :d].contiguous(), matrix[d:, :d].contiguous())
