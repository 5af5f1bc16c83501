"""What each damping guarantees (ren 2.3.1, 3.3.2, Lemma 4), the gate, and the bounds of Lemmas 2 and 6."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from curvlab.linalg.bfgs import bfgs_update, times
from curvlab.optim.kbfgs.pair_damping import Pair, double_damping, powell, powell_identity_lm, powell_lm
from curvlab.optim.kbfgs.pair_gate import bounded, usable

pytestmark = pytest.mark.usefixtures("float64")
SEEDS, MU1 = st.integers(0, 10**6), 0.2
SLACK = 1 - 1e-9
"""Rounding of the inner products that are compared."""


def drawn(seed: int, d: int, size: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """H positive definite, s and y of any curvature, negative too, and Hy; with a group's axis."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(1, d, d, generator=generator, dtype=torch.float64)
    h = root @ root.mT + 0.01 * torch.eye(d, dtype=torch.float64)
    s = torch.randn(1, d, generator=generator, dtype=torch.float64)
    y = size * torch.randn(1, d, generator=generator, dtype=torch.float64)
    return h, s, y, times(h, y)


def inner(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum())


PAIRS = {"seed": SEEDS, "d": st.integers(1, 6), "size": st.sampled_from([1e-3, 1.0, 1e3])}


@settings(deadline=None, max_examples=60)
@given(**PAIRS)
def test_powell_reaches_its_bound_with_the_least_change(seed: int, d: int, size: float) -> None:
    _, s, y, hy = drawn(seed, d, size)
    damped, theta = powell(s, y, hy, MU1)
    yhy = inner(y, hy)
    assert inner(damped, y) >= MU1 * yhy * SLACK
    assert 0 < theta.item() <= 1
    if inner(s, y) >= MU1 * yhy:
        assert torch.equal(damped, s)
    else:  # on the bound: a larger share of s would be under it
        assert inner(damped, y) == pytest.approx(MU1 * yhy, rel=1e-9)


@settings(deadline=None, max_examples=60)
@given(**PAIRS, mu2=st.floats(1e-3, 1.0))
def test_double_damping(seed: int, d: int, size: float, mu2: float) -> None:
    _, s, y, hy = drawn(seed, d, size)
    pair = double_damping(s, y, hy, MU1, mu2)
    assert inner(pair.s, y) >= MU1 * inner(y, hy) * SLACK
    assert inner(pair.s, pair.y) >= mu2 * inner(pair.s, pair.s) * SLACK


@settings(deadline=None, max_examples=60)
@given(**PAIRS, mu2=st.floats(1e-3, 1e3))
def test_powell_and_levenberg_marquardt(seed: int, d: int, size: float, mu2: float) -> None:
    _, s, y, hy = drawn(seed, d, size)
    pair = powell_lm(s, y, hy, MU1, mu2)
    assert inner(pair.s, y) >= MU1 * inner(y, hy) * SLACK
    assert inner(pair.s, pair.y) >= (MU1 * inner(y, hy) + mu2 * inner(pair.s, pair.s)) * SLACK


@settings(deadline=None, max_examples=60)
@given(**PAIRS, mu2=st.floats(1e-3, 1e3))
def test_powell_with_the_identity_has_the_bounds_of_lemma_4(seed: int, d: int, size: float, mu2: float) -> None:
    _, s, y, hy = drawn(seed, d, size)
    pair = powell_identity_lm(s, y, hy, MU1, mu2)
    sy = inner(pair.s, pair.y)
    assert inner(pair.s, pair.s) <= sy / mu2 / SLACK
    assert inner(pair.y, pair.y) <= sy * mu2 * (1 + 2 * MU1) / MU1 / SLACK


def sequence(seed: int, d: int, rule: object, count: int, mu2: float, start: float, skip: bool) -> list[Tensor]:
    """H after every one of `count` updates from random pairs, of a limited memory that has room for all of them."""
    generator = torch.Generator().manual_seed(seed)
    h = start * torch.eye(d, dtype=torch.float64)[None]
    found = [h[0]]
    for _ in range(count):
        s = torch.randn(1, d, generator=generator, dtype=torch.float64)
        y = 10 ** (4 * torch.rand(1, generator=generator, dtype=torch.float64) - 2) * torch.randn(
            1, d, generator=generator, dtype=torch.float64
        )
        pair: Pair = rule(s, y, times(h, y), MU1, mu2)  # type: ignore[operator]
        if skip and not bool(bounded(pair.s, pair.y, times(h, pair.y), MU1)):
            continue
        h = bfgs_update(h, pair.s, pair.y)
        found.append(h[0])
    return found


@settings(deadline=None, max_examples=25)
@given(seed=SEEDS, d=st.integers(1, 6), mu2=st.floats(0.05, 1.0))
def test_skipping_keeps_the_bounds_of_lemma_2(seed: int, d: int, mu2: float) -> None:
    p = 6
    low = (1 + 1 / MU1) ** -p
    growth = (1 + 1 / math.sqrt(MU1 * mu2 * low)) ** 2
    high = growth**p + (growth**p - 1) / (growth - 1) / mu2
    for h in sequence(seed, d, double_damping, p, mu2, 1.0, skip=True):
        values = torch.linalg.eigvalsh(h)
        assert values.min() >= low * SLACK
        assert values.max() <= high


@settings(deadline=None, max_examples=25)
@given(seed=SEEDS, d=st.integers(1, 6), mu2=st.floats(0.05, 20.0))
def test_damping_with_the_identity_keeps_the_bounds_of_lemma_6(seed: int, d: int, mu2: float) -> None:
    p = 8
    mu3 = MU1 / (mu2 * (1 + 2 * MU1))
    growth = (1 + 1 / math.sqrt(mu2 * mu3)) ** 2
    high = growth**p / mu2 + (growth**p - 1) / (growth - 1) / mu2
    for h in sequence(seed, d, powell_identity_lm, p, mu2, 1 / mu2, skip=False):
        values = torch.linalg.eigvalsh(h)
        assert values.min() >= SLACK / (mu2 + p / mu3)
        assert values.max() <= high


def test_the_gate() -> None:
    s = torch.tensor([[1.0, 0.0]]).repeat(6, 1)
    y = torch.tensor([[1.0, 5.0], [-1.0, 0.0], [0.0, 1.0], [1e-3, 0.0], [math.nan, 0.0], [math.inf, 0.0]])
    g = torch.tensor([[0.0, 20.0]]).repeat(6, 1)
    assert usable(s, y, g).flatten().tolist() == [True, False, False, False, False, False]
    assert usable(s, y).flatten().tolist() == [True, False, False, True, False, False]
    tiny = torch.tensor([[0.0, 0.0]])
    assert not usable(tiny, tiny).item()  # a step of length zero teaches nothing


def test_the_skip_rule_is_yhy_over_sy() -> None:
    s, y, hy = torch.tensor([[1.0], [1.0]]), torch.tensor([[1.0], [1.0]]), torch.tensor([[4.0], [6.0]])
    assert bounded(s, y, hy, MU1).flatten().tolist() == [True, False]
