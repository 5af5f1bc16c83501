"""The summary of a spectrum: definitions, degenerate matrices, invariances."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curvlab.errors import NumericalError
from curvlab.operators.operator import Dense, Diagonal, Grouped, GroupedKronecker, Kronecker, LowRank
from curvlab.operators.spectrum import kronecker_spectra, spectrum

EPS = np.finfo(float).eps


def psd(*shape: int) -> torch.Tensor:
    x = torch.randn(*shape, shape[-1] + 2, dtype=torch.float64)
    return x @ x.mT


def test_the_numbers_of_a_known_spectrum() -> None:
    found = spectrum(Diagonal(torch.tensor([4.0, 1.0, 2.0, 1.0])))
    assert (found.size, found.trace, found.max, found.min, found.rank) == (4, 8.0, 4.0, 1.0, 4)
    assert found.effective_rank == pytest.approx(math.exp(0.5 * math.log(2) + 0.25 * math.log(4) + 0.25 * math.log(8)))
    assert found.condition_number == found.condition_number_nonzero == 4.0
    assert found.quantiles == pytest.approx((1.0, 1.0, 1.0, 1.5, 2.5, 3.7, 4.0))
    assert found.stderr == {}


@pytest.mark.parametrize(("count", "rank"), [(0, 3), (10, 3), (10**6, 2), (10**9, 1)])
def test_the_rule_for_zero(count: int, rank: int) -> None:
    """An eigenvalue of 1e-12 is under count·eps from count = 4504 on, one of 1e-8 from 45 million on."""
    found = spectrum(Diagonal(torch.tensor([1e-12, 1e-8, 1.0], dtype=torch.float64)), count)
    assert found.rank == rank
    assert found.condition_number == (pytest.approx(1e12) if rank == 3 else None)
    assert found.condition_number_nonzero == pytest.approx({3: 1e12, 2: 1e8, 1: 1.0}[rank])
    assert found.min == (1e-12 if rank == 3 else 0.0)


def test_float32_products_do_not_count_as_rank() -> None:
    x = torch.randint(-5000, 5000, (1000, 40)).float()
    x[:, 5] = 2 * x[:, 4] + x[:, 3]  # exact: small integers
    assert spectrum(Dense(x.double().T @ x.double() / 1000), 1000).rank == 39
    assert spectrum(Dense(x.T @ x / 1000), 1000, resolution=torch.finfo(torch.float32).eps).rank == 39


def test_the_zero_matrix_has_a_spectrum_of_zeros() -> None:
    for operator in (Dense(torch.zeros(3, 3)), Kronecker((Dense(torch.zeros(3, 3)), Dense(torch.eye(2))))):
        found = spectrum(operator)
        assert (found.trace, found.max, found.min, found.rank) == (0.0, 0.0, 0.0, 0)
        assert found.effective_rank is found.condition_number is found.condition_number_nonzero is None
        assert found.quantiles == (0.0,) * 7


def test_the_empty_matrix_has_none() -> None:
    found = spectrum(Dense(torch.zeros(0, 0)))
    assert (found.size, found.trace, found.rank) == (0, 0.0, 0)
    assert found.max is found.min is found.effective_rank is found.condition_number is found.quantiles is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_numbers_are_an_error(bad: float) -> None:
    broken = torch.eye(3)
    broken[1, 1] = bad
    rows, stack = torch.randn(2, 5), broken.expand(2, 3, 3)
    rows[0, 0] = bad
    product = Kronecker((Dense(broken), Dense(torch.eye(2))))
    for operator in (Dense(broken), Diagonal(broken.diagonal()), LowRank(rows, 1.0), Grouped(stack), product):
        with pytest.raises(NumericalError, match="finite"):
            spectrum(operator)


def test_an_indefinite_matrix_is_an_error() -> None:
    with pytest.raises(NumericalError, match="positive semi-definite"):
        spectrum(Dense(torch.diag(torch.tensor([1.0, -0.5]))))


def test_no_levels_no_quantiles() -> None:
    found = spectrum(Dense(psd(4)), levels=())
    assert found.quantiles is None
    assert spectrum(Dense(torch.zeros(2, 2)), levels=()).quantiles is None


def test_extremes_of_a_product_do_not_overflow() -> None:
    tiny = Diagonal(torch.tensor([1e-200, 1e-190], dtype=torch.float64))
    found = spectrum(Kronecker((tiny, tiny)), levels=())
    assert found.condition_number == pytest.approx(1e20)
    assert found.effective_rank == pytest.approx(1, abs=1e-6)


def test_kronecker_summary_is_made_of_its_factors() -> None:
    a, g = Dense(psd(30)), LowRank(torch.randn(6, 10).double(), 1 / 6)
    first, second, both = kronecker_spectra((a, g), count=6)
    assert (first, second, both) == (spectrum(a, 6), spectrum(g, 6), spectrum(Kronecker((a, g)), 6))
    assert both.size == 300
    assert both.rank == first.rank * second.rank == 180
    for name in ("trace", "max", "effective_rank", "condition_number_nonzero"):
        assert getattr(both, name) == pytest.approx(getattr(first, name) * getattr(second, name), rel=1e-12)
    assert both.condition_number is None


def test_each_factor_has_its_own_count() -> None:
    """Of 100,000 rows an eigenvalue of 1e-12 is rounding, of 10 it is not."""
    a = Diagonal(torch.tensor([1e-12, 1.0], dtype=torch.float64))
    stack = Grouped(torch.eye(2).expand(3, 2, 2).contiguous())
    ranks = [found.rank for found in kronecker_spectra((a, a, stack), count=[10, 10**5, 10])]
    assert ranks == [2, 1, 6, 12]
    with pytest.raises(ValueError, match="zip"):
        kronecker_spectra((a, a), count=[10])


def test_grouped_factors_are_multiplied_group_by_group() -> None:
    a, g = Grouped(psd(3, 4)), Grouped(psd(3, 2))
    first, second, both = kronecker_spectra((a, g))
    assert (first, second, both) == (spectrum(a), spectrum(g), spectrum(GroupedKronecker((a, g))))
    dense = torch.block_diag(*(torch.kron(x, y) for x, y in zip(a.stack, g.stack, strict=True)))
    expected = spectrum(Dense(dense))
    assert both.size == expected.size == 24
    assert both.effective_rank == pytest.approx(expected.effective_rank, rel=1e-10)
    assert both.condition_number == pytest.approx(expected.condition_number, rel=1e-8)


def test_many_channels_are_one_batch() -> None:
    """A norm layer: 20,000 blocks of two rows, with one gradient variance each."""
    a = torch.rand(20_000, 2, dtype=torch.float64) + 0.5
    g = torch.rand(20_000, 1, 1, dtype=torch.float64) + 0.5
    *_, found = kronecker_spectra((Grouped(a.diag_embed()), Grouped(g)))
    values = (a * g[:, 0]).flatten()
    assert found.rank == found.size == 40_000
    assert found.condition_number == pytest.approx(values.max().item() / values.min().item(), rel=1e-12)
    assert found.quantiles == pytest.approx(np.quantile(values, (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)), rel=1e-12)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), size=st.integers(1, 12), exponent=st.integers(-30, 30))
def test_scaling_moves_only_the_scale(seed: int, size: int, exponent: int) -> None:
    torch.manual_seed(seed)
    matrix, scale = psd(size), 2.0**exponent
    plain, scaled = spectrum(Dense(matrix)), spectrum(Dense(scale * matrix))
    assert scaled.rank == plain.rank
    for name in ("condition_number", "effective_rank", "condition_number_nonzero"):
        assert getattr(scaled, name) == pytest.approx(getattr(plain, name), rel=1e-9)
    for name in ("trace", "max", "min"):
        assert getattr(scaled, name) == pytest.approx(scale * getattr(plain, name), rel=1e-9)
    assert scaled.quantiles == pytest.approx([scale * q for q in plain.quantiles], rel=1e-9)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), size=st.integers(2, 12))
def test_a_rotation_changes_nothing(seed: int, size: int) -> None:
    torch.manual_seed(seed)
    matrix = psd(size)
    rotation, _ = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64))
    plain, rotated = spectrum(Dense(matrix)), spectrum(Dense(rotation @ matrix @ rotation.T))
    # The smallest eigenvalue is known to eps·λ_max, so its relative error grows with the condition number.
    assert rotated.condition_number == pytest.approx(
        plain.condition_number, rel=100 * EPS * plain.condition_number + 1e-12
    )
    assert rotated.effective_rank == pytest.approx(plain.effective_rank, rel=1e-10)
    assert rotated.trace == pytest.approx(plain.trace, rel=1e-12)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), rank=st.integers(1, 5), size=st.integers(5, 12))
def test_rank_is_found(seed: int, rank: int, size: int) -> None:
    torch.manual_seed(seed)
    rows = torch.randn(rank, size, dtype=torch.float64)
    low, dense = spectrum(LowRank(rows, 1.0), rank), spectrum(Dense(rows.T @ rows), rank)
    assert low.rank == dense.rank == rank
    assert low.effective_rank == pytest.approx(dense.effective_rank, rel=1e-9)
    assert 1 <= low.effective_rank <= rank * (1 + 1e-12)
