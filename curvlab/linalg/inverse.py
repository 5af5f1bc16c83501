"""`safe_inverse`: inverses of positive definite matrices that come out, or say of each matrix that it has none."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from curvlab.linalg.float64 import double
from curvlab.shapes import Bool, Float

JITTERS = (0.0, 1e-8, 1e-6, 1e-4)
"""Shares of ‖A‖ that are added to the diagonal in turn, in float64, where float32 failed: 1e-8 is under the rounding
that a float32 matrix was stored with, and a matrix that 1e-4 does not make positive is wrong, not rounded."""

RESOLVED = 16
"""λ_min/λ_max, in units of the dtype's eps, under which a smallest eigenvalue is mostly rounding: Cholesky may succeed,
but the inverse can be wrong many times over. `eigh` errs by 1–3 eps·λ_max (measured for d = 30 … 1000)."""


class Checked(NamedTuple):
    """A matrix function of every matrix of a stack, and for which it exists; the result is zero where it does not."""

    value: Float[Tensor, "b d d"]
    ok: Bool[Tensor, " b"]


def safe_inverse(stack: Float[Tensor, "b d d"]) -> Checked:
    """A⁻¹ = L⁻ᵀL⁻¹ with A = LLᵀ, of every matrix A of the stack (docs/curvature.md).

    What fails in the stack's dtype, or is too ill-conditioned for it, is tried again in float64, then with the growing
    shifts `JITTERS` of ‖A‖_∞ on the diagonal. Nothing is raised: a matrix that is not finite, or clearly not positive
    definite, is not `ok`.

    Only the lower triangles are read; the inverses are symmetric bit for bit. One number is read back from the
    device, "did all succeed?"; the retries, which are rare, read more.

    Args:
        stack: symmetric positive definite, float32 or float64.
    """
    return retried(stack, cholesky_inverse(stack), _precise_inverse)


def cholesky_inverse(stack: Float[Tensor, "b d d"]) -> Checked:
    """A⁻¹ = L⁻ᵀL⁻¹ in the stack's dtype, without reading from the device; where it is not `ok` it means nothing.

    Not `ok` is what is not finite, not positive definite, or has max_i A_ii · max_i (A⁻¹)_ii, which is a lower bound of
    the condition number, above 1/(`RESOLVED`·eps).
    """
    factor, info = torch.linalg.cholesky_ex(stack)
    pivots = factor.diagonal(dim1=-2, dim2=-1)
    # A number that is not finite makes its row's pivot so; this spares a pass over the matrix to look for one.
    ok = (info == 0) & pivots.isfinite().all(-1)
    pivots.masked_fill_(~ok[:, None], 1.0)  # `cholesky_inverse` raises at a zero pivot
    value = torch.cholesky_inverse(factor)
    # The largest entries of a positive definite matrix are on its diagonal: if they are finite, all are.
    condition = _largest(stack) * _largest(value)
    return Checked(value, ok & (condition <= 1 / (RESOLVED * torch.finfo(stack.dtype).eps)))


def retried(stack: Float[Tensor, "b d d"], first: Checked, again: Callable[[Tensor], Tensor | None]) -> Checked:
    """`first`, with again(A) in place of what failed, and zeros where that is None too; alters `first`."""
    value, ok = first
    if not bool(ok.all()):
        for i in (~ok).nonzero().flatten().tolist():
            result = again(stack[i])
            ok[i] = result is not None
            value[i] = 0.0 if result is None else result
    return Checked(value, ok)


def _largest(stack: Float[Tensor, "b d d"]) -> Float[Tensor, " b"]:
    return stack.diagonal(dim1=-2, dim2=-1).amax(-1)


def _precise_inverse(matrix: Float[Tensor, "d d"]) -> Float[Tensor, "d d"] | None:
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
