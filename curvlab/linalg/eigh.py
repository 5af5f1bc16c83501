"""`safe_eigh`: eigenvalues and eigenvectors of symmetric matrices, or which matrices have none that can be found."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from curvlab.linalg.float64 import double
from curvlab.shapes import Bool, Float

_JITTERS = (0.0, 1e-14, 1e-12, 1e-10)


class Eigh(NamedTuple):
    """A = vectors · diag(values) · vectorsᵀ, values ascending; zero values and the identity where not `ok`."""

    values: Float[Tensor, "b d"]
    vectors: Float[Tensor, "b d d"]
    ok: Bool[Tensor, " b"]


def safe_eigh(stack: Float[Tensor, "b d d"]) -> Eigh:
    """A = Q diag(λ) Qᵀ of every matrix A of the stack, λ ascending (docs/curvature.md).

    A matrix that is not finite is set aside first. If the iteration does not converge, the matrices are done one by
    one, each in its own dtype, then in float64, then with a growing shift on its diagonal, 1e-14 … 1e-10 of its norm,
    which is taken back from the eigenvalues. Nothing is raised. Only the lower triangles are read, but a number that
    is not finite counts wherever it stands.

    Args:
        stack: symmetric, float32 or float64.
    """
    # mps has no symmetric eigenvalue routine
    x = stack.cpu() if stack.device.type == "mps" else stack
    ok = x.isfinite().flatten(1).all(1)
    eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    clean = torch.where(ok[:, None, None], x, eye)
    try:
        values, vectors = torch.linalg.eigh(clean)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        values, vectors = x.new_zeros(x.shape[:-1]), eye.expand_as(x).clone()
        for i in ok.nonzero().flatten().tolist():
            ok[i] = _one(x[i], values[i], vectors[i])
    values = values * ok[:, None]
    return Eigh(values.to(stack.device), vectors.to(stack.device), ok.to(stack.device))


def _one(matrix: Float[Tensor, "d d"], values: Float[Tensor, " d"], vectors: Float[Tensor, "d d"]) -> bool:
    """Write the eigenvalues and eigenvectors of one matrix; whether they were found."""
    precise = double(matrix)
    norm = precise.abs().sum(1).amax()
    eye = torch.eye(len(matrix), dtype=precise.dtype, device=precise.device)
    attempts = [(matrix, 0.0), *((torch.addcmul(precise, eye, j * norm), j) for j in _JITTERS)]
    for attempt, jitter in attempts:
        try:
            found, basis = torch.linalg.eigh(attempt)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            continue
        values.copy_(found - jitter * norm)
        vectors.copy_(basis)
        return True
    return False
