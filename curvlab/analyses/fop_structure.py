"""What a learned matrix P does: the angle ∠(g, Pg) and its weights by distance in the kernel (FOP, sections 5, A.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from curvlab.linalg.float64 import double
from curvlab.operators.operator import LowRank, Operator
from curvlab.operators.woodbury import Woodbury
from curvlab.shapes import Float


@dataclass(frozen=True)
class KernelStructure:
    """Means of the entries of a matrix over kernel positions, by where the two positions are (FOP, section 5, Figure
    5a).

    `diagonal`: of a position with itself; `neighbours`: with the next one along each axis of the kernel, in the axes'
    order (vertical, horizontal), None for an axis of one position; `others`: all other pairs; `negative`: the share of
    neighbouring pairs whose weight is below zero, 1 where P whitens as in the paper.
    """

    diagonal: float
    neighbours: tuple[float | None, ...]
    others: float | None
    negative: float | None


@dataclass(frozen=True)
class GradientAngle:
    """∠(g, Pg) in degrees for the mean gradient g of so many examples (fop Figure A.1); None where g is zero.

    `targets` says whose targets g is of: those of the "data", or "drawn" from the network's own distribution.
    """

    degrees: float | None
    targets: str
    examples: int


def angle(g: Float[Tensor, "*shape"], u: Float[Tensor, "*shape"]) -> float | None:
    """∠(g, u) = 2·atan2(‖ĝ − û‖, ‖ĝ + û‖) in degrees, accurate near 0 too (Kahan); None where one of them is zero."""
    lengths = g.norm().item(), u.norm().item()
    if not all(math.isfinite(length) and length > 0 for length in lengths):
        return None
    a, b = g / lengths[0], u / lengths[1]
    return math.degrees(2 * math.atan2((a - b).norm().item(), (a + b).norm().item()))


def kernel_structure(operator: Operator, kernel: Sequence[int]) -> KernelStructure | None:
    """Means of P_ij by where i and j are in the kernel: the same position, next to it along an axis, elsewhere.

    P is `LowRank` or `Woodbury` of rows `[k, d]`, d positions in row-major order; of k·d numbers it takes a few passes
    and never forms P. None where P's entries are beyond float64.

    Args:
        operator: P.
        kernel: sizes of its axes; empty for inputs without known neighbours.
    """
    assert isinstance(operator, LowRank | Woodbury)
    m, scale = double(operator.rows).mT, operator.scale
    added = float(operator.lam) if isinstance(operator, Woodbury) else 0.0
    diagonal = (scale * m.square().sum() + added * len(m)).item()
    everything = (scale * m.sum(0).square().sum() + added * len(m)).item()
    grid = m.reshape(*kernel, m.shape[1]) if kernel else m
    pairs = [
        scale * (grid.narrow(a, 0, n - 1) * grid.narrow(a, 1, n - 1)).sum(-1).flatten() for a, n in enumerate(kernel)
    ]
    near, count = torch.cat(pairs) if pairs else m.new_zeros(0), len(m) * (len(m) - 1) // 2
    if not math.isfinite(everything) or not bool(near.isfinite().all()):
        return None
    far = (everything - diagonal) / 2 - near.sum().item()
    return KernelStructure(
        diagonal=diagonal / len(m),
        neighbours=tuple(one.mean().item() if len(one) else None for one in pairs),
        others=far / (count - len(near)) if count > len(near) else None,
        negative=(near < 0).double().mean().item() if len(near) else None,
    )
