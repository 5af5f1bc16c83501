"""Split-half standard errors against the spread of repeated experiments."""

from __future__ import annotations

import pytest
import torch

from curvlab.analyses.split_half import standard_error, with_split_half
from curvlab.operators.operator import Dense
from curvlab.operators.spectrum import spectrum


def test_half_the_difference() -> None:
    assert standard_error(3.0, 5.0) == standard_error(5.0, 3.0) == 1.0
    assert standard_error(None, 5.0) is standard_error(5.0, None) is None


def test_it_is_the_standard_deviation_of_the_full_estimate() -> None:
    """Root mean square of |a − b|/2 over 2000 experiments; a mean of 200 has a standard deviation of 1/√200."""
    halves = torch.randn(2000, 2, 100, dtype=torch.float64).mean(2)
    squares = [standard_error(a, b) ** 2 for a, b in halves.tolist()]
    # 2000 squared normals: the mean of squares has a relative standard deviation of √(2/2000) = 3 %.
    assert sum(squares) / 2000 == pytest.approx(1 / 200, rel=0.13)


def test_every_scalar_of_a_spectrum_has_one() -> None:
    x = torch.randn(60, 8, dtype=torch.float64)
    full, a, b = (spectrum(Dense(rows.T @ rows / len(rows)), len(rows)) for rows in (x, x[:30], x[30:]))
    found = with_split_half(full, a, b)
    assert found.trace == full.trace
    names = {"trace", "max", "min", "effective_rank", "condition_number", "condition_number_nonzero"}
    assert set(found.stderr) == names
    for name in names:
        assert found.stderr[name] == abs(getattr(a, name) - getattr(b, name)) / 2
    assert with_split_half(found, full, full).stderr["trace"] == 0.0


def test_a_singular_half_has_no_condition_number() -> None:
    x = torch.randn(10, 8, dtype=torch.float64)
    full, a, b = (spectrum(Dense(rows.T @ rows / len(rows)), len(rows)) for rows in (x, x[:5], x[5:]))
    found = with_split_half(full, a, b)
    assert found.condition_number is not None
    assert found.stderr["condition_number"] is None
    assert found.stderr["condition_number_nonzero"] is not None
