"""Extremes of diag(f) − vvᵀ against numpy's eigenvalues of the matrix written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curvlab.analyses.rank_one import count_below, rank_one_extremes

entries = st.lists(st.tuples(st.integers(1, 6), st.sampled_from([0.0, 0.0, 0.1, 0.5, 1.0])), min_size=1, max_size=9)


@settings(deadline=None, max_examples=150)
@given(entries=entries, floor=st.sampled_from([1e-12, 0.37, 1.51, 2.73]))
def test_extremes_are_those_of_the_matrix(entries: list[tuple[int, float]], floor: float) -> None:
    """Ties in f, entries of v that are zero, negative eigenvalues, and any number of them under the floor."""
    f, v = (torch.tensor(part, dtype=torch.float64) for part in zip(*entries, strict=True))
    values = np.linalg.eigvalsh(np.diag(f.numpy()) - np.outer(v, v))
    if np.abs(values - floor).min() < 1e-9:  # which side of the floor it is on is rounding
        return
    below, least, most = rank_one_extremes(f, v, floor, 0.0)
    assert below == count_below(f, v, floor) == (values < floor).sum()
    if below == len(f):
        assert (least, most) == (0.0, 0.0)
    else:
        assert (least, most) == pytest.approx((values[below], values[-1]), rel=1e-12)


def test_frequencies_have_one_zero_and_no_more() -> None:
    f = torch.tensor([0.5, 0.5 - 1e-9, 1e-9], dtype=torch.float64)
    below, least, _ = rank_one_extremes(f, f, 1e-14, 1e-14)
    assert below == 1
    values = np.linalg.eigvalsh(np.diag(f.numpy()) - np.outer(f, f))
    assert least == pytest.approx(values[1], rel=1e-6)
