"""The BFGS update: secant condition, Broyden's family, Sherman–Morrison (ren Theorem 1), groups, zeros."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from curvlab.linalg.bfgs import bfgs_update, times

pytestmark = pytest.mark.usefixtures("float64")
SEEDS = st.integers(0, 10**6)


def definite(d: int, generator: torch.Generator) -> Tensor:
    root = torch.randn(d, d, generator=generator, dtype=torch.float64)
    square = root @ root.T  # whose halves need not be the same bits
    return (square + square.T) / 2 + 0.1 * torch.eye(d, dtype=torch.float64)


def broyden(h: Tensor, s: Tensor, y: Tensor, phi: float) -> Tensor:
    """ren eq. 2.11, written out."""
    rho, sigma = 1 / (s @ y), 1 / (y @ h @ y)
    v = rho * s - sigma * h @ y
    return h - sigma * torch.outer(h @ y, h @ y) + rho * torch.outer(s, s) + phi * (y @ h @ y) * torch.outer(v, v)


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS, d=st.integers(1, 8))
def test_it_is_the_product_form_and_satisfies_the_secant_condition(seed: int, d: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    h, s = definite(d, generator), torch.randn(d, generator=generator, dtype=torch.float64)
    y = definite(d, generator) @ s
    new = bfgs_update(h[None], s[None], y[None])[0]
    eye, rho = torch.eye(d, dtype=torch.float64), 1 / (s @ y)
    dense = (eye - rho * torch.outer(s, y)) @ h @ (eye - rho * torch.outer(y, s)) + rho * torch.outer(s, s)
    scale = dense.abs().max()
    torch.testing.assert_close(new / scale, dense / scale, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(times(new[None], y[None])[0], s, rtol=1e-8, atol=1e-8 * float(scale * y.norm()))
    assert torch.equal(new, new.T)  # sums of two numbers: no order that a processor could choose
    assert torch.linalg.eigvalsh(new).min() > -1e-12 * scale
    torch.testing.assert_close(new / scale, broyden(h, s, y, 1.0) / scale, rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS, d=st.integers(1, 8), c=st.floats(1e-3, 1e3), phi=st.floats(0, 1))
def test_a_rank_one_change_is_inverted_exactly_by_all_of_broydens_family(
    seed: int, d: int, c: float, phi: float
) -> None:
    """Theorem 1: H = A⁻¹, s = Ha, y = (A + c aaᵀ)s give (A + c aaᵀ)⁻¹, which is Sherman–Morrison's."""
    generator = torch.Generator().manual_seed(seed)
    matrix, a = definite(d, generator), torch.randn(d, generator=generator, dtype=torch.float64)
    h, grown = torch.linalg.inv(matrix), matrix + c * torch.outer(a, a)
    s = h @ a
    y = grown @ s
    wanted = h - torch.outer(h @ a, h @ a) / (1 / c + a @ h @ a)
    scale = float(h.abs().max())
    torch.testing.assert_close(wanted @ grown, torch.eye(d, dtype=torch.float64), rtol=0, atol=1e-9 * scale * 1e4)
    for found in (bfgs_update(h[None], s[None], y[None])[0], broyden(h, s, y, phi)):
        torch.testing.assert_close(found / scale, wanted / scale, rtol=0, atol=1e-9)


def test_groups_are_apart_and_a_pair_of_zeros_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    h = torch.stack([definite(4, generator) for _ in range(3)])
    s = torch.randn(3, 4, generator=generator)
    y = times(torch.stack([definite(4, generator) for _ in range(3)]), s)
    s[1], y[1] = 0.0, 0.0
    new = bfgs_update(h, s, y)
    assert torch.equal(new[1], h[1])
    for group in (0, 2):
        alone = bfgs_update(h[group : group + 1], s[group : group + 1], y[group : group + 1])[0]
        torch.testing.assert_close(new[group], alone, rtol=1e-12, atol=1e-14)
