"""The tail fit on samples of known power laws, and against a slow transcription of its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curvlab.analyses import power_law as module
from curvlab.analyses.power_law import power_law


def pareto(n: int, exponent: float, start: float, seed: int = 0) -> np.ndarray:
    return start * np.random.default_rng(seed).random(n) ** (-1 / (exponent - 1))


def slowly(values: np.ndarray) -> tuple[float, float, float, int]:
    """Clauset, Shalizi & Newman word by word: (exponent, distance, start, count)."""
    best = (math.inf, math.nan, math.nan, 0)
    for start in np.unique(values):
        tail = np.sort(values[values >= start])
        total = np.log(tail / start).sum()
        if len(tail) < 10 or total == 0:
            continue
        exponent = 1 + len(tail) / total
        fit = 1 - (tail / start) ** (1 - exponent)
        top = np.array([(tail <= x).mean() for x in tail])
        foot = np.array([(tail < x).mean() for x in tail])
        best = min(best, (max(np.abs(fit - top).max(), np.abs(fit - foot).max()), exponent, start, len(tail)))
    return best[1], best[0], best[2], best[3]


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), n=st.integers(10, 60), ties=st.booleans())
def test_the_fit_is_the_one_of_the_definition(seed: int, n: int, ties: bool) -> None:
    values = np.random.default_rng(seed).lognormal(size=n)
    if ties:
        values = np.ceil(values * 4)
    expected = slowly(values)
    found = power_law(torch.from_numpy(values))
    if expected[3] == 0:
        assert found is None
        return
    assert found.distance == pytest.approx(expected[1], rel=1e-9)
    assert (found.exponent, found.start) == pytest.approx((expected[0], expected[2]), rel=1e-9)
    assert found.count == expected[3]


@pytest.mark.parametrize("exponent", [1.5, 2.5, 4.0])
def test_a_power_law_is_recognised(exponent: float) -> None:
    found = power_law(torch.from_numpy(pareto(5000, exponent, 3.0)))
    # The standard error of the exponent is (α − 1)/√count; four of them.
    assert found.exponent == pytest.approx(exponent, abs=4 * (exponent - 1) / math.sqrt(found.count))
    assert found.distance < 1.6 / math.sqrt(found.count)  # the 1 % point of Kolmogorov's distribution
    assert found.count > 500


def test_the_start_of_the_tail_is_found() -> None:
    body = np.random.default_rng(1).uniform(0, 10, 3000)
    found = power_law(torch.from_numpy(np.concatenate([body, pareto(2000, 3.0, 10.0, seed=2)])))
    assert found.start == pytest.approx(10, rel=0.15)
    assert found.exponent == pytest.approx(3.0, abs=0.2)


def test_blocks_of_candidates_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.from_numpy(np.random.default_rng(3).lognormal(size=300))
    whole = power_law(values)
    monkeypatch.setattr(module, "BLOCK", 1000)
    assert power_law(values) == whole


def test_scale_and_order_do_not_matter() -> None:
    values = torch.from_numpy(pareto(200, 2.2, 1.0))
    one, other = power_law(values), power_law(values.flip(0) * 1e6)
    assert other.exponent == pytest.approx(one.exponent, rel=1e-9)
    assert other.start == pytest.approx(1e6 * one.start, rel=1e-9)
    assert (other.count, other.distance) == (one.count, pytest.approx(one.distance, rel=1e-9))


def test_no_tail() -> None:
    assert power_law(torch.zeros(0)) is None
    assert power_law(torch.arange(1.0, 10.0)) is None
    assert power_law(torch.zeros(100)) is None
    assert power_law(torch.ones(100)) is None
    assert power_law(1 + 1e-9 * torch.rand(100, dtype=torch.float64)) is None
    nine_above_zero = torch.cat([torch.zeros(50), torch.arange(1.0, 10.0)])
    assert power_law(nine_above_zero) is None
    assert power_law(torch.arange(1.0, 11.0)).count == 10
