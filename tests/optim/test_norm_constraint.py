"""ν: the step is no longer than √c in the metric of the damped curvature, and no shorter than it has to be."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curvlab.optim.norm_constraint import norm_constraint, squared_length

positive = st.floats(1e-6, 1e6)


@settings(deadline=None)  # the machine may be busy
@given(st.integers(0, 2**32 - 1), positive, positive, positive)
def test_the_step_is_within_the_limit(seed: int, rate: float, limit: float, damping: float) -> None:
    """‖ναp‖² ≤ c by the dense matrix, and equal to c wherever ν < 1."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    metric = root @ root.T + damping * torch.eye(5, dtype=torch.float64)
    g = torch.randn(5, generator=generator, dtype=torch.float64)
    p = torch.linalg.solve(metric, g)
    scale = norm_constraint(squared_length({"w": p}, {"w": g}, {"w": rate}), limit)
    step = scale * rate * p
    # The solve carries an error of about κ eps, κ < 1e8.
    length = (step @ metric @ step).item()
    assert length <= limit * (1 + 1e-6)
    assert 0 < scale <= 1
    assert scale == 1 or length == pytest.approx(limit, rel=1e-6)


def test_lengths_add_up_over_parameters_with_their_own_rates() -> None:
    p = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3.0]]), "free": torch.tensor([9.0])}
    g = {"a": torch.tensor([4.0, 5.0]), "b": torch.tensor([[6.0]]), "free": torch.tensor([9.0])}
    assert squared_length(p, g, {"a": 0.5, "b": 2.0}) == 0.25 * 14 + 4.0 * 18


@pytest.mark.parametrize(
    ("squared", "scale"), [(0.0, 1.0), (-1e-9, 1.0), (4.0, 0.5), (0.5, 1.0), (math.inf, 0.0), (math.nan, 0.0)]
)
def test_edges(squared: float, scale: float) -> None:
    assert norm_constraint(torch.tensor(squared), 1.0).item() == scale


@pytest.mark.parametrize("limit", [0.0, -1.0, math.nan, math.inf])
def test_limits_are_positive_numbers(limit: float) -> None:
    with pytest.raises(ValueError, match="positive number"):
        norm_constraint(torch.tensor(1.0), limit)


def test_a_step_of_no_parameters_has_no_length() -> None:
    with pytest.raises(ValueError, match="no parameters"):
        squared_length({}, {}, {})
