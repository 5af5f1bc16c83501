"""The compact L-BFGS inverse is the two-loop recursion is dense BFGS; in float32 and for similar pairs too."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from curvlab.linalg.bfgs import bfgs_update, times
from curvlab.operators.compact_inverse import compact_inverse
from curvlab.operators.product import product
from curvlab.optim.kbfgs.pair_damping import powell_lm

pytestmark = pytest.mark.usefixtures("float64")


def pairs(groups: int, p: int, d: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(groups, d, d, generator=generator)
    s = torch.randn(groups, p, d, generator=generator)
    return s, s @ (root @ root.mT / d + 0.5 * torch.eye(d))


def two_loops(s: Tensor, y: Tensor, scale: float, v: Tensor) -> Tensor:
    """Nocedal & Wright, Algorithm 7.4, for one group."""
    q, alphas = v.clone(), []
    for si, yi in reversed(list(zip(s, y, strict=True))):
        alphas.append((si @ q) / (si @ yi))
        q = q - alphas[-1] * yi
    r = scale * q
    for si, yi, alpha in zip(s, y, reversed(alphas), strict=True):
        r = r + si * (alpha - (yi @ r) / (si @ yi))
    return r


@pytest.mark.parametrize(("groups", "p", "d"), [(1, 0, 4), (1, 1, 4), (1, 5, 7), (3, 4, 5), (1, 12, 6)])
def test_compact_is_two_loops_is_dense(groups: int, p: int, d: int) -> None:
    s, y = pairs(groups, p, d)
    scale = 0.7
    compact = compact_inverse(s, y, torch.tensor(scale))
    h = scale * torch.eye(d).repeat(groups, 1, 1)
    for i in range(p):
        h = bfgs_update(h, s[:, i], y[:, i])
    matrix = torch.randn(groups, d, 3)
    found = product(compact, matrix.reshape(groups * d, 3).T.contiguous()).T.reshape(groups, d, 3)
    torch.testing.assert_close(found, h @ matrix, rtol=1e-9, atol=1e-10)
    for g in range(groups):
        loops = torch.stack([two_loops(s[g], y[g], scale, column) for column in matrix[g].T], dim=1)
        torch.testing.assert_close(found[g], loops, rtol=1e-9, atol=1e-10)
    assert compact.size == groups * d


def test_pairs_of_zeros_are_none() -> None:
    s, y = pairs(2, 3, 4)
    holes_s, holes_y = (torch.cat([torch.zeros(2, 2, 4), t], dim=1) for t in (s, y))
    v = torch.randn(8)
    torch.testing.assert_close(
        product(compact_inverse(holes_s, holes_y, torch.tensor(2.0)), v),
        product(compact_inverse(s, y, torch.tensor(2.0)), v),
        rtol=1e-12,
        atol=1e-13,
    )


def test_a_hundred_averaged_pairs_in_float32() -> None:
    """Averages with β = 0.9 resemble their neighbours: the product still is the one of float64's two loops.

    Measured 2e-5; a middle matrix worked out in float32 errs by 1e-3.
    """
    generator = torch.Generator().manual_seed(0)
    d, p, damping = 60, 100, 0.5
    hessian = torch.diag(torch.logspace(-3, 2, d))
    s, y = torch.zeros(1, d), torch.zeros(1, d)
    h, kept = torch.eye(d)[None] / damping, []
    for _ in range(p):
        fresh = 0.1 * torch.randn(1, d, generator=generator)
        s, y = 0.9 * s + 0.1 * fresh, 0.9 * y + 0.1 * fresh @ hessian
        pair = powell_lm(s, y, times(h, y), 0.2, damping)
        h = bfgs_update(h, pair.s, pair.y)
        kept.append((pair.s[0].float(), pair.y[0].float()))
    ss, ys = (torch.stack(part)[None] for part in zip(*kept, strict=True))
    v = torch.randn(d, generator=generator)
    wanted = two_loops(ss[0].double(), ys[0].double(), 1 / damping, v)
    found = product(compact_inverse(ss, ys, torch.tensor(1 / damping, dtype=torch.float32)), v.float()).double()
    assert (found - wanted).norm() < 1e-3 * wanted.norm()
