"""Minimal residuals for symmetric systems that need not be positive definite."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from curvlab.shapes import Float


@dataclass(frozen=True, eq=False)
class MinresSolution:
    """What MINRES reached.

    Attributes:
        solution: x.
        residual: ‖b − Ax‖/‖b‖, computed anew at the end; 0 for b = 0.
        iterations: how many products with A were made for it.
        converged: whether the residual is at most the tolerance asked for.
    """

    solution: Float[Tensor, " d"]
    residual: float
    iterations: int
    converged: bool


@torch.no_grad()
def minres(
    product: Callable[[Tensor], Tensor], b: Float[Tensor, " d"], max_iterations: int, tolerance: float = 1e-6
) -> MinresSolution:
    """x_k = argmin ‖b − Ax‖ over the Krylov space of k products: Lanczos' tridiagonal matrix, made triangular by one
    Givens rotation per step (Paige & Saunders 1975, section 5).

    Three products of vectors per iteration and two numbers read from the device; x, and no basis, is kept.

    Args:
        product: v ↦ Av, A symmetric.
        b: right-hand side.
        max_iterations: products at most, the one that checks the residual aside.
        tolerance: relative residual at which to stop.
    """
    size = float(b.norm())
    x = torch.zeros_like(b)
    if size == 0 or not math.isfinite(size):
        return MinresSolution(x, 0.0 if size == 0 else math.inf, 0, size == 0)
    v, before = b / size, torch.zeros_like(b)
    beta = 0.0
    d1, d2 = torch.zeros_like(b), torch.zeros_like(b)
    # Rotations of the last two steps, and the part of the right-hand side that is left: the residual's norm.
    (c1, s1), (c2, s2) = (1.0, 0.0), (1.0, 0.0)
    left, iterations = size, 0
    for _ in range(max_iterations):
        iterations += 1
        w = product(v) - beta * before
        alpha = float(torch.dot(v, w))
        w = w - alpha * v
        next_beta = float(w.norm())
        # Column (β, α, β⁺) of the tridiagonal matrix under the two rotations before, then one of its own.
        epsilon, delta = s2 * beta, c2 * beta
        delta, gamma = c1 * delta + s1 * alpha, c1 * alpha - s1 * delta
        length = math.hypot(gamma, next_beta)
        if length == 0 or not math.isfinite(length):
            break
        c, s = gamma / length, next_beta / length
        d = (v - delta * d1 - epsilon * d2) / length
        x = x + (c * left) * d
        left = -s * left
        (c1, s1), (c2, s2) = (c, s), (c1, s1)
        d1, d2 = d, d1
        if abs(left) <= tolerance * size or next_beta <= torch.finfo(b.dtype).eps * size:
            break
        v, before, beta = w / next_beta, v, next_beta
    residual = float((b - product(x)).norm()) / size
    return MinresSolution(x, residual, iterations, residual <= tolerance)
