"""Conjugate gradients for symmetric positive definite systems, one or many right-hand sides at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from curvlab.shapes import Float, Int

Product = Callable[[Tensor], Tensor]
Reason = Literal["iterations", "converged", "negative curvature", "indefinite preconditioner", "not finite"]

_REASONS: tuple[Reason, ...] = (
    "iterations",
    "converged",
    "negative curvature",
    "indefinite preconditioner",
    "not finite",
)
_RUNNING, _CONVERGED, _CURVATURE, _PRECONDITIONER, _NOT_FINITE = range(5)


@dataclass(frozen=True, eq=False)
class Solution:
    """What conjugate gradients reached.

    Attributes:
        solution: x, in the shape of the right-hand side; the last iterate before whatever stopped it.
        residuals: ‖b − Ax‖ of x₀, x₁, …, by CG's own recurrence; stays at its last value once a system has stopped.
            Infinite where even x₀ gave no number.
        iterations: how many iterates were made.
        status: of each system, the index of its reason; `reason` and `reasons` read it from the device.
    """

    solution: Float[Tensor, "*b d"]
    residuals: Float[Tensor, "n ..."]
    iterations: int
    status: Int[Tensor, "*b"]

    @property
    def reasons(self) -> list[Reason]:
        """Why each system stopped: "iterations" (used up), "converged", …"""
        return [_REASONS[code] for code in self.status.flatten().tolist()]

    @property
    def reason(self) -> Reason:
        """Why the system stopped; of several systems the gravest reason, "converged" only if all did."""
        codes = self.status.flatten().tolist()
        worst = max(codes, default=_CONVERGED)
        return _REASONS[worst if worst > _CONVERGED else min(codes, default=_CONVERGED)]


@torch.no_grad()
def conjugate_gradients(
    product: Product,
    b: Float[Tensor, "*b d"],
    preconditioner: Product | None = None,
    start: Float[Tensor, "*b d"] | None = None,
    max_iterations: int | None = None,
    tolerance: float = 0.0,
) -> Solution:
    """x ← x + αp, α = rᵀz/pᵀAp, r ← r − αAp, z = Pr, p ← z + βp, β = rᵀz/(rᵀz before), until ‖r‖ ≤ tolerance·‖b‖
    (Hestenes and Stiefel; preconditioned as in Nocedal and Wright, Algorithm 5.3).

    A system stops, and keeps its last iterate, where pᵀAp ≤ 0 (no positive curvature along p), where rᵀz ≤ 0 (the
    preconditioner is not positive definite) and where a number is not finite. With tolerance 0 nothing is read from
    the device, so that a few iterations may be made in every step of a training loop.

    Args:
        product: v ↦ Av for v in the shape of b; A is symmetric positive definite. A batch may have an A per system.
        b: one right-hand side `[d]`, or several `[b, d]` with α and β of their own.
        preconditioner: r ↦ Pr with P ≈ A⁻¹ symmetric positive definite.
        start: x₀, 0 if None. A start that is not finite is reported as "not finite" and returned.
        max_iterations: d if None; rounding may call for more.
        tolerance: ‖r‖/‖b‖ at which a system has converged; at the eps of the dtype it has in any case.
    """
    x = torch.zeros_like(b) if start is None else start.clone()
    r = b.clone() if start is None else b - product(x)
    z = r if preconditioner is None else preconditioner(r)
    p = z
    size = _norm(r)
    enough = max(tolerance, torch.finfo(b.dtype).eps) * _norm(b)
    rz = _dot(r, z)
    status = _judge(size, enough, rz)
    size = size.where(size.isfinite(), torch.inf)
    history = [size]
    for _ in range(b.shape[-1] if max_iterations is None else max_iterations):
        if tolerance > 0 and not bool((status == _RUNNING).any()):
            break
        ap = product(p)
        curvature = _dot(p, ap)
        status = torch.where(status == _RUNNING, _judge_curvature(curvature), status)
        alpha = (rz / curvature)[..., None]
        r = torch.addcmul(r, alpha, ap, value=-1)
        next_size = _norm(r)
        status = torch.where((status == _RUNNING) & ~next_size.isfinite(), _NOT_FINITE, status)
        moving = status == _RUNNING
        x = torch.where(moving[..., None], torch.addcmul(x, alpha, p), x)
        size = torch.where(moving, next_size, size)
        # The r and z of a system that has stopped mean nothing from here on; its p stays finite for `product`.
        z = r if preconditioner is None else preconditioner(r)
        next_rz = _dot(r, z)
        status = torch.where(moving, _judge(size, enough, next_rz), status)
        p = torch.where((status == _RUNNING)[..., None], torch.addcmul(z, (next_rz / rz)[..., None], p), p)
        rz = next_rz
        history.append(size)
    return Solution(x, torch.stack(history), len(history) - 1, status)


def _judge(size: Tensor, enough: Tensor, rz: Tensor) -> Tensor:
    """The status of a system by its residual."""
    code = torch.where(rz > 0, _RUNNING, _PRECONDITIONER)
    code = torch.where(size <= enough, _CONVERGED, code)
    return torch.where(size.isfinite() & rz.isfinite(), code, _NOT_FINITE)


def _judge_curvature(curvature: Tensor) -> Tensor:
    code = torch.where(curvature > 0, _RUNNING, _CURVATURE)
    return torch.where(curvature.isfinite(), code, _NOT_FINITE)


def _norm(x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1)
    return norm


def _dot(x: Tensor, y: Tensor) -> Tensor:
    dot: Tensor = torch.linalg.vecdot(x, y)
    return dot
