"""Inverse p-th roots of positive definite matrices: by coupled Newton iterations and by eigenvalues."""

from __future__ import annotations

from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from curvlab.linalg.eigh import safe_eigh
from curvlab.linalg.float64 import double
from curvlab.linalg.gram import gram
from curvlab.linalg.inverse import JITTERS, RESOLVED, Checked, retried
from curvlab.shapes import Float

GROWTH = 1.2
"""An error that grows by more than this ends the iteration (Ren 2022, section 4.7.2)."""

QUADRATIC = 0.5
"""‖M − I‖_F under which each Newton step must at least halve the error, or rounding has taken over."""

RESIDUAL = 0.5
"""The largest ‖XᵖA − I‖_F/√d with which the result of coupled Newton is taken; beyond it, `eigh_root` in float64. About
eps·λ_max/λ_min stands there for the best X too: measured 0.2 in float32 at a ratio of 1e6, with X right to 0.2 %."""

EIGH_DEVICES = ("cpu",)
"""Devices where `eigh_root` is the cheaper. Milliseconds on one CPU core, float32, p = 4, λ_max/λ_min = 1e4 (and 1e6,
where `eigh_root` goes on to float64):

    d               30        100       250       500       1000
    eigh_root       0.2 (0.4) 0.6 (1.5) 3.3 (8.2) 15 (40)   120 (510)
    coupled_newton  1.1 (1.5) 2.4 (3.2) 18 (24)   125 (160) 1300 (2600)

Elsewhere coupled Newton, which is all matrix products, as (Ren 2022, section 4.7.2) advises; that choice is not
measured."""

Method = Literal["auto", "newton", "eigh"]


class NewtonRoot(NamedTuple):
    """What coupled Newton reached: the root, ‖XᵖA − I‖_F/√d (infinite where there is no root), the steps made."""

    root: Float[Tensor, "b d d"]
    residual: Float[Tensor, " b"]
    iterations: int


def coupled_newton(
    stack: Float[Tensor, "b d d"], p: int, max_iterations: int = 100, tolerance: float = 1e-6
) -> NewtonRoot:
    """X ← XT, M ← TᵖM with T = ((p+1)I − M)/p, from M = zA, X = z^(1/p)I until M = I, X = A^(−1/p) (Ren 2022, section
    4.7.2).

    z = (p+1)/(2 min(‖A‖_F, ‖A‖_∞)) puts the eigenvalues of M into (0, (p+1)/2], from where each comes closer to 1 in
    every step; so ‖M − I‖_F can only grow by rounding. A matrix is done when ‖M − I‖_F ≤ tolerance·√d; when the error
    grows more than `GROWTH` times, and the previous iterate is kept; or when it is under `QUADRATIC` and no longer
    halves, and the better iterate is kept (float32 may never reach 1e-6). M may be I while X has drifted, therefore
    the true residual is computed at the end, in the stack's dtype, so that it holds the rounding of Xᵖ too.

    A step is about log₂(p) + 3 matrix products, and ln(λ_max/λ_min) + 6 steps are usual.

    Args:
        stack: symmetric positive definite; both triangles are read.
        p: at least 1.
        max_iterations: of the slowest matrix of the stack.
        tolerance: of ‖M − I‖_F/√d.

    Returns:
        The root is zero and the residual infinite of a matrix that is zero, not finite or far from positive definite.
    """
    d = stack.shape[-1]
    eye = torch.eye(d, dtype=stack.dtype, device=stack.device)
    bound = torch.minimum(stack.abs().sum(-1).amax(-1), torch.linalg.matrix_norm(stack))
    z = ((p + 1) / 2 / bound)[:, None, None]
    m, x = stack * z, eye * z ** (1 / p)
    error = torch.linalg.matrix_norm(m - eye)
    enough = tolerance * d**0.5
    active = error > enough  # False for NaN
    iterations = 0
    while iterations < max_iterations and bool(active.any()):
        iterations += 1
        t = (eye * (p + 1) - m) / p
        next_m = torch.linalg.matrix_power(t, p) @ m
        next_error = torch.linalg.matrix_norm(next_m - eye)
        stalled = (error < QUADRATIC) & (next_error > error / 2)
        take = active & (next_error <= error * torch.where(stalled, 1.0, GROWTH))
        x = torch.where(take[:, None, None], x @ t, x)
        m = torch.where(take[:, None, None], next_m, m)
        error = torch.where(take, next_error, error)
        active = take & ~stalled & (error > enough)
    residual = torch.linalg.matrix_norm(torch.linalg.matrix_power(x, p) @ stack - eye) / d**0.5
    there = residual.isfinite() & x.isfinite().flatten(1).all(1)
    root = torch.where(there[:, None, None], x, 0.0)
    return NewtonRoot((root + root.mT) / 2, residual.where(there, float("inf")), iterations)


def eigh_root(stack: Float[Tensor, "b d d"], p: int) -> Checked:
    """A^(−1/p) = Q diag(λ^(−1/p)) Qᵀ of every matrix A = Q diag(λ) Qᵀ of the stack.

    A matrix whose smallest eigenvalue is under `RESOLVED`/p·eps·λ_max (its root then errs by as much as an inverse at
    `RESOLVED`, since d(λ^(−1/p)) = −λ^(−1/p)/p dλ/λ) is done again in float64, and if it is not
    positive there either, with the first of the shifts `JITTERS`·λ_max that makes it so. Nothing is raised.

    Args:
        stack: symmetric positive definite, float32 or float64.
        p: any positive number.
    """
    values, vectors, ok = safe_eigh(stack)
    ok = ok & _positive(values, p)
    first = Checked(_recompose(values.where(ok[:, None], 1.0), vectors, p), ok)
    return retried(stack, first, partial(_precise_root, p=p))


def inverse_root(stack: Float[Tensor, "b d d"], p: int, method: Method = "auto") -> Checked:
    """A^(−1/p) of every matrix of the stack, by the cheaper method of the device, checked.

    A result of coupled Newton whose true residual is over `RESIDUAL` is replaced by that of `eigh_root` in float64.

    Args:
        stack: symmetric positive definite, float32 or float64.
        p: at least 1.
        method: "newton", "eigh", or "auto": "eigh" on the devices `EIGH_DEVICES`, "newton" on others.
    """
    if method == "eigh" or (method == "auto" and stack.device.type in EIGH_DEVICES):
        return eigh_root(stack, p)
    value, residual, _ = coupled_newton(stack, p)
    return retried(stack, Checked(value, residual <= RESIDUAL), partial(_precise_root, p=p))


def _positive(values: Float[Tensor, "b d"], p: int) -> Tensor:
    """Which lists of ascending eigenvalues are positive beyond the rounding of `eigh`."""
    return values[:, :1].gt(RESOLVED / p * torch.finfo(values.dtype).eps * values[:, -1:]).all(1)


def _recompose(values: Float[Tensor, "b d"], vectors: Float[Tensor, "b d d"], p: int) -> Float[Tensor, "b d d"]:
    """Q diag(λ^(−1/p)) Qᵀ = SSᵀ with S = Q diag(λ^(−1/2p)): half the work of a product, symmetric bit for bit."""
    return gram((vectors * values.pow(-0.5 / p)[:, None, :]).mT)


def _precise_root(matrix: Float[Tensor, "d d"], p: int) -> Float[Tensor, "d d"] | None:
    """The root by way of float64 and growing shifts, or None."""
    values, vectors, ok = safe_eigh(double(matrix)[None])
    for jitter in JITTERS if bool(ok[0]) else ():
        shifted = values + jitter * values[:, -1:]
        if bool(_positive(shifted, p)[0] & (shifted[0, 0] > jitter / 2 * values[0, -1])):
            root = _recompose(shifted, vectors, p)[0].to(matrix)
            return root if bool(root.isfinite().all()) else None
    return None
