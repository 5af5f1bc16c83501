"""`safe_eigvalsh`: eigenvalues of symmetric matrices in float64 that come out, or an error that says why not."""

from __future__ import annotations

import torch
from torch import Tensor

from curvlab.errors import NumericalError
from curvlab.linalg.float64 import double
from curvlab.shapes import Float

_JITTERS = (0.0, 1e-14, 1e-12, 1e-10)


def safe_eigvalsh(matrix: Float[Tensor, "*g d d"]) -> Float[Tensor, "*g d"]:
    """λ(matrix + jI) − j in float64, ascending; j = 0 unless LAPACK fails, then growing (docs/curvature.md).

    No eigenvectors are computed and only the lower triangle is read. The shift by j = 1e-14 … 1e-10 of the largest
    entry is undone on the eigenvalues, so that it costs rounding of that size and no bias.

    Args:
        matrix: symmetric matrices of any floating dtype.

    Raises:
        NumericalError: the matrix holds NaN or infinity, or no shift made the eigenvalue iteration converge.
    """
    x = double(matrix)
    if x.numel() == 0:
        return x.new_zeros(x.shape[:-1])
    size = x.shape[-1]
    largest = max(abs(bound.item()) for bound in torch.aminmax(x))  # aminmax passes NaN on and needs no mask
    if not largest < float("inf"):
        raise NumericalError(
            f"a {size} × {size} matrix holds {int((~x.isfinite()).sum())} numbers that are not finite",
            "its eigenvalues do not exist",
            "look for NaN or infinity in the weights, the data or the loss",
        )
    for jitter in _JITTERS:
        shift = jitter * largest
        try:
            shifted = x if shift == 0 else x + shift * torch.eye(size, dtype=x.dtype, device=x.device)
            values: Tensor = torch.linalg.eigvalsh(shifted)
            return values - shift
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            continue
    raise NumericalError(
        f"the eigenvalues of a {size} × {size} matrix of largest entry {largest:.3g} did not converge",
        f"not even after adding {_JITTERS[-1]:g} of that entry to its diagonal",
        "try more data or float64",
    )
