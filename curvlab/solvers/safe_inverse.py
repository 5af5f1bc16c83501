"""`safe_inverse`: inverses of positive definite matrices that come out, or say of each matrix that it has none."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from curvlab.operators.double import double
from curvlab.shapes import Bool, Float

JITTERS = (0.0, 1e-8, 1e-6, 1e-4)
"""Shares of ‖A‖ that are added to the diagonal in turn, in float64, where float32 failed: 1e-8 is under the rounding
that a float32 matrix was stored with, and a matrix that 1e-4 does not make positive is wrong, not rounded."""


class Checked(NamedTuple):
    """A matrix function of every matrix of a stack, and for which it exists; the result is zero where it does not."""

    value: Float[Tensor, "b d d"]
    ok: Bool[Tensor, " b"]


def safe_inverse(stack: Float[Tensor, "b d d"]) -> Checked:
    """A⁻¹ = L⁻ᵀL⁻¹ with A = LLᵀ, of every matrix A of the stack (methods.md section 4).

    What fails in the stack's dtype is tried again in float64, then with the growing shifts `JITTERS` of ‖A‖_∞ on the
    diagonal. Nothing is raised: a matrix that is not finite, or clearly not positive definite, is not `ok`.

    Only the lower triangles are read; the inverses are symmetric bit for bit. One number is read back from the
    device, "did all succeed?"; the retries, which are rare, read more.

    Args:
        stack: symmetric positive definite, float32 or float64.
    """
    value, ok = cholesky_inverse(stack)
    if not bool(ok.all()):
        for i in (~ok).nonzero().flatten().tolist():
            retried = _retried(stack[i])
            ok[i] = retried is not None
            value[i] = 0.0 if retried is None else retried
    return Checked(value, ok)


def cholesky_inverse(stack: Float[Tensor, "b d d"]) -> Checked:
    """A⁻¹ = L⁻ᵀL⁻¹ without a retry and without a look at the result; where it is not `ok` it means nothing."""
    factor, info = torch.linalg.cholesky_ex(stack)
    pivots = factor.diagonal(dim1=-2, dim2=-1)
    # A number that is not finite makes its row's pivot so; this spares a pass over the matrix to look for one.
    ok = (info == 0) & pivots.isfinite().all(-1)
    pivots.masked_fill_(~ok[:, None], 1.0)  # `cholesky_inverse` raises at a zero pivot
    value = torch.cholesky_inverse(factor)
    # The largest entries of a positive definite matrix are on its diagonal: if they are finite, all are.
    return Checked(value, ok & value.diagonal(dim1=-2, dim2=-1).isfinite().all(-1))


def _retried(matrix: Float[Tensor, "d d"]) -> Float[Tensor, "d d"] | None:
    """The inverse by way of float64 and growing shifts, or None."""
    x = double(matrix)
    if not bool(x.isfinite().all()):
        return None
    norm = x.abs().sum(1).amax()
    eye = torch.eye(len(x), dtype=x.dtype, device=x.device)
    for jitter in JITTERS:
        value, ok = cholesky_inverse(torch.addcmul(x, eye, jitter * norm)[None])
        value = value[0].to(matrix)
        if bool(ok[0] & value.isfinite().all()):
            return value
    return None
