"""Performance profiles against their definition, written out with numpy and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import gmean

from curvlab.comparison.performance_profile import performance_profile
from curvlab.comparison.spread import spread

TIMES = {
    "p": {"a": 1.0, "b": 2.0, "c": None},
    "q": {"a": 6.0, "b": 2.0, "c": 2.5},
    "r": {"a": None, "b": 30.0, "c": 10.0},
    "nobody": {"a": None, "b": None, "c": None},
}
PENALTY = {"p": 8.0, "q": 9.0, "r": 40.0, "nobody": 5.0}


@pytest.fixture
def profile():
    return performance_profile(TIMES, PENALTY)


def ratio(problem, name):
    row = [math.inf if time is None else time for time in TIMES[problem].values()]
    return (
        (math.inf if TIMES[problem][name] is None else TIMES[problem][name]) / min(row) if min(row) < math.inf else None
    )


def test_rho_is_the_share_of_problems_within_a_factor_of_the_best(profile):
    assert profile.tau == (1.0, 1.25, 2.0, 3.0)
    for name in "abc":
        for factor in (1.0, 1.1, 1.25, 1.9, 2.0, 3.0, 1e9):
            within = [(found := ratio(p, name)) is not None and found <= factor for p in TIMES]
            assert profile.share(name, factor) == sum(within) / 4
    assert profile.rho == {"a": (0.25, 0.25, 0.25, 0.5), "b": (0.25, 0.25, 0.5, 0.75), "c": (0.25, 0.5, 0.5, 0.5)}
    assert profile.ratios["c"] == {"p": None, "q": 1.25, "r": 1.0, "nobody": None}


def test_the_score_is_the_mean_of_rho_from_1_to_4(profile):
    # The midpoint rule on cells that no step cuts is exact.
    points = 1 + (np.arange(300) + 0.5) / 100
    for name in "abc":
        assert profile.score[name] == pytest.approx(np.mean([profile.share(name, tau) for tau in points]), abs=1e-12)


def test_a_ratio_beyond_4_does_not_count_in_the_score():
    times = {"p": {"a": 1.0, "b": 5.0}, "q": {"a": 1.0, "b": None}}
    profile = performance_profile(times, {"p": 5.0, "q": 1.0})
    assert profile.score == {"a": 1.0, "b": 0.0}
    assert profile.rho["b"] == (0.0, 0.5)


def test_the_speed_up_is_a_geometric_mean_with_misses_at_the_penalty(profile):
    solved = [p for p in TIMES if p != "nobody"]
    filled = {p: {n: PENALTY[p] if t is None else t for n, t in TIMES[p].items()} for p in solved}
    for a in "abc":
        for b in "abc":
            expected = gmean([filled[p][b] / filled[p][a] for p in solved])
            assert profile.speed_up[a][b] == pytest.approx(expected, rel=1e-12)
            assert profile.speed_up[a][b] * profile.speed_up[b][a] == pytest.approx(1, rel=1e-12)


def test_where_nobody_meets_a_target_there_is_no_speed_up():
    profile = performance_profile({p: {"a": None, "b": None} for p in "pq"}, {"p": 0.0, "q": 1.0})
    assert profile.speed_up["a"]["b"] is None
    assert profile.score == {"a": 0.0, "b": 0.0}
    assert profile.tau == (1.0,)


def test_a_target_that_was_met_from_the_start_takes_no_time():
    profile = performance_profile({"p": {"a": 0.0, "b": 0.0}, "q": {"a": 2.0, "b": 1.0}}, {"p": 1.0, "q": 2.0})
    assert profile.ratios["a"] == {"p": 1.0, "q": 2.0}
    assert profile.speed_up["b"]["a"] == pytest.approx(2)


def test_the_order_of_optimizers_and_problems_does_not_matter(profile):
    turned = {p: dict(reversed(row.items())) for p, row in reversed(TIMES.items())}
    again = performance_profile(turned, PENALTY)
    assert again.tau == profile.tau
    for name in "abc":
        assert again.rho[name] == profile.rho[name]
        assert again.score[name] == profile.score[name]
        assert again.speed_up[name] == pytest.approx(profile.speed_up[name], rel=1e-14)


def test_what_does_not_exist_is_the_slowest():
    assert (spread([3.0, 1.0, None]).median, spread([3.0, 1.0, None]).max) == (3.0, None)
    assert spread([1.0, None]).median is None
    assert spread([1.0, None]).min == 1.0
    assert spread([4.0, 1.0]).median == 2.5
    assert spread([float("nan")]).min is None
    assert spread([]).median is None
