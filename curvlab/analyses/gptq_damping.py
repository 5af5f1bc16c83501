"""The damping of M = E[aaᵀ] that GPTQ and its relatives need, and what it costs (docs/quantisation.md)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from curvlab.linalg.float64 import double, double_gram
from curvlab.operators.operator import Dense, Diagonal, Grouped, LowRank, Operator
from curvlab.shapes import Float, Num

STOCK = 0.01
"""The damping that GPTQ tools take when nothing is said, as a share of the mean diagonal."""
FINEST, COARSEST = -40, 10
"""Powers of two between which the smallest damping is looked for."""
REFINED = 3
"""Halvings of the last power of two: the damping is known to 2^(1/8), 9 %."""


def damping(second: Operator, weight: Num[Tensor, "g o i"] | None, memory: int) -> tuple[float | None, float | None]:
    """`smallest_damping` and `damping_bias` by the form that M is stored in, if that fits the memory in bytes."""
    if isinstance(second, Diagonal):  # one-hot inputs: nothing to factorise
        return 0.0, None if weight is None else _diagonal_bias(double(second.values), weight[0])
    groups = second.stack.shape[0] if isinstance(second, Grouped) else 1
    if 32 * groups * (second.size // groups) ** 2 > memory:  # M, its damped copy and the factor; float64 and float32
        return None, None
    if isinstance(second, LowRank):
        stack = second.scale * double_gram(second.rows[None])
    else:
        assert isinstance(second, Dense | Grouped)
        stack = double(second.stack if isinstance(second, Grouped) else second.matrix[None])
    same = weight is not None and weight.shape[::2] == stack.shape[:2]
    return smallest_damping(stack), damping_bias(stack, weight) if weight is not None and same else None


def _diagonal_bias(energy: Float[Tensor, " i"], weight: Num[Tensor, "o i"]) -> float | None:
    """`damping_bias` of one group with M = diag(energy)."""
    outputs = energy * double(weight).square().sum(0).to(energy.device)
    lam = STOCK * energy.sum() / (energy > 0).sum().clamp(min=1)
    kept: float = outputs.sum().item()
    lost: float = (outputs * (lam / (energy + lam)).square()).sum().item()
    return math.sqrt(lost / kept) if kept > 0 else None


def smallest_damping(stack: Float[Tensor, "g i i"]) -> float | None:
    """The least p found for which the float32 Cholesky factorisation of M + p·mean_j(M_jj)·I succeeds for every group.

    This is `percdamp` of GPTQ tools. The mean is over the inputs that are not always 0: tools put a 1 on the diagonal
    of the others, which leaves the factorisation of the rest as it is. 0 where M itself can be factorised; else p is
    within 9 % above a damping that fails. None where even p = 1024 fails.

    Args:
        stack: M of every group, finite.
    """
    scaled = torch.stack([_unit_mean(m) for m in stack]).float()

    def holds(p: float) -> bool:
        shifted = scaled.clone()
        shifted.diagonal(dim1=1, dim2=2).add_(p)
        return int(torch.linalg.cholesky_ex(shifted).info.abs().max()) == 0

    if holds(0.0):
        return 0.0
    if not holds(math.exp2(COARSEST)):
        return None
    fails, works = FINEST - 1, COARSEST
    while works - fails > 1:
        middle = (fails + works) // 2
        fails, works = (fails, middle) if holds(math.exp2(middle)) else (middle, works)
    low, high = float(fails), float(works)
    for _ in range(REFINED):
        halfway = (low + high) / 2
        low, high = (low, halfway) if holds(math.exp2(halfway)) else (halfway, high)
    return math.exp2(high)


def damping_bias(stack: Float[Tensor, "g i i"], weight: Num[Tensor, "g o i"], p: float = STOCK) -> float | None:
    """√(E‖(W − Ŵ)a‖² / E‖Wa‖²) with Ŵ = W M (M + λI)⁻¹ and λ = p·mean_j(M_jj).

    Ŵ minimises E‖(W − Ŵ)a‖² + λ‖Ŵ‖²: it is what a least-squares solver with this damping makes of a layer that it could
    reproduce exactly, so that the number is the share of the layer's output (in root mean square) that the damping
    alone costs. For M = cI it is p/(1 + p); it grows with the energy in directions of the inputs below λ. λ is of each
    group, the means are over all groups. None where the layer's output is 0.

    Args:
        stack: M of every group.
        weight: W of every group.
        p: as `percdamp` of GPTQ tools.
    """
    lost: float = 0.0
    kept: float = 0.0
    for m, w in zip(stack, weight, strict=True):
        lam = p * _mean_diagonal(m)
        if lam <= 0:
            continue
        shifted = m.clone()
        shifted.diagonal().add_(lam)
        columns = double(w.mT).to(m.device)
        error = lam * torch.cholesky_solve(columns, torch.linalg.cholesky(shifted))  # (W − Ŵ)ᵀ
        lost += (error * (m @ error)).sum().item()
        kept += (columns * (m @ columns)).sum().item()
    return math.sqrt(max(lost, 0.0) / kept) if kept > 0 else None


def _mean_diagonal(m: Float[Tensor, "i i"]) -> float:
    """Mean of the entries of the diagonal that are not 0; 0 if there are none."""
    energy = m.diagonal()
    mean: float = (energy.sum() / (energy > 0).sum().clamp(min=1)).item()
    return mean


def _unit_mean(m: Float[Tensor, "i i"]) -> Float[Tensor, "i i"]:
    """M over its mean diagonal, with 1 for the inputs that are always 0: they are apart from all others."""
    scaled = m / (_mean_diagonal(m) or 1.0)
    energy = scaled.diagonal()
    energy.copy_(torch.where(energy > 0, energy, 1.0))
    return scaled
