"""The reduction ratio and the table of what it does to the damping."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from curvlab.optim.levenberg_marquardt import HESSIAN_FREE, SUBSAMPLED, LevenbergMarquardt, reduction_ratio


def scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize(
    ("rule", "shrink", "grow"),
    [
        (HESSIAN_FREE, 2 / 3, 3 / 2),
        (SUBSAMPLED, 0.99, 1.01),
        (LevenbergMarquardt.kfac(5), (19 / 20) ** 5, (20 / 19) ** 5),
    ],
    ids=["hf", "smw", "kfac"],
)
@pytest.mark.parametrize(
    ("ratio", "answer"),
    [
        (-3.0, "grow"),
        (0.2499, "grow"),
        (0.25, "stay"),
        (0.5, "stay"),
        (0.75, "stay"),
        (0.7501, "shrink"),
        (2.0, "shrink"),
        (math.nan, "grow"),
        (math.inf, "grow"),
        (-math.inf, "grow"),
    ],
)
def test_rule_table(rule: LevenbergMarquardt, shrink: float, grow: float, ratio: float, answer: str) -> None:
    factor = {"grow": grow, "stay": 1.0, "shrink": shrink}[answer]
    assert rule.update(scalar(0.3), scalar(ratio)).item() == pytest.approx(0.3 * factor, rel=1e-15)
    assert rule.accepts(scalar(ratio)).item() == math.isfinite(ratio)


def test_damping_stays_in_its_bounds_and_is_not_moved_into_them() -> None:
    rule = LevenbergMarquardt(0.5, 2.0, least=1e-3, most=1e3)
    assert rule.update(scalar(1.5e-3), scalar(1.0)).item() == 1e-3
    assert rule.update(scalar(1e-4), scalar(1.0)).item() == 1e-4
    assert rule.update(scalar(900.0), scalar(0.0)).item() == 1e3
    assert rule.update(scalar(5e3), scalar(0.0)).item() == 5e3


@pytest.mark.parametrize(
    ("before", "after", "predicted", "ratio"),
    [
        (2.0, 1.5, -0.5, 1.0),
        (2.0, 1.0, -0.5, 2.0),
        (2.0, 3.0, -0.5, -2.0),
        (2.0, 3.0, 1.0, 0.0),  # the model itself promises a worse loss: no agreement to be glad of
        (2.0, 1.0, 0.5, 0.0),
        (2.0, 1.0, 0.0, 0.0),
        (2.0, 2.0, 0.0, 1.0),
        (2.0, 2.0, -1e-17, 1.0),  # below the rounding of the loss
        (2.0, math.nan, -0.5, math.nan),
        (2.0, math.inf, -0.5, math.nan),
        (2.0, 1.0, math.nan, math.nan),
        (2.0, 1.0, -math.inf, math.nan),
    ],
)
def test_reduction_ratio(before: float, after: float, predicted: float, ratio: float) -> None:
    found = reduction_ratio(scalar(before), scalar(after), scalar(predicted)).item()
    assert found == ratio or (math.isnan(ratio) and math.isnan(found))


def test_damping_finds_its_level_on_a_quartic() -> None:
    """Damped Newton on w⁴/4 from w = 3 with a far too small and a far too large λ: both reach the minimum."""
    for start in (1e-8, 1e4):
        w, lam = scalar(3.0), scalar(start)
        for _ in range(200):
            curvature, slope = 3 * w**2 + lam, w**3
            step = -slope / curvature
            predicted = 0.5 * curvature * step**2 + slope * step
            ratio = reduction_ratio(w**4 / 4, (w + step) ** 4 / 4, predicted)
            w = torch.where(HESSIAN_FREE.accepts(ratio), w + step, w)
            lam = HESSIAN_FREE.update(lam, ratio)
        assert abs(w.item()) < 1e-3


@pytest.mark.parametrize("factors", [(1.0, 1.5), (0.5, 1.0), (0.0, 1.5), (0.5, math.inf)])
def test_factors_must_be_in_order(factors: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="shrinks by a factor below 1"):
        LevenbergMarquardt(*factors)


def test_thresholds_and_intervals_must_be_in_order() -> None:
    with pytest.raises(ValueError, match="in order"):
        LevenbergMarquardt(0.5, 2.0, low=0.8)
    with pytest.raises(ValueError, match="in order"):
        LevenbergMarquardt(0.5, 2.0, least=0.0)
    with pytest.raises(ValueError, match="not at least 1"):
        LevenbergMarquardt.kfac(0)
