"""The whitening table against numpy on the literal matrices of lnb 3.3 and 3.5."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curvlab.analyses.results import Whitening
from curvlab.analyses.whitening import metric, whitening
from curvlab.operators.matrix import matrix
from curvlab.operators.operator import Dense, Diagonal, Grouped, LowRank
from curvlab.operators.spectrum import spectrum

NONE = Whitening(None, None, None, None, None)


def features(rows: int, size: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(size, size, dtype=torch.float64, generator=generator)
    return torch.relu(torch.randn(rows, size, dtype=torch.float64, generator=generator) @ mix + 1.0)


def moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x.mT @ x / x.shape[-2], x.mean(-2)


def literal(x: torch.Tensor, biased: bool) -> Whitening:
    """Every matrix as the papers write it."""
    a = x.numpy()
    mu, sigma = a.mean(0), np.cov(a.T, bias=True).reshape(a.shape[1], a.shape[1])
    ones = np.concatenate([a, np.ones((len(a), 1))], 1) if biased else a
    m = ones.T @ ones / len(a)
    d = np.diag(np.diag(m) ** -0.5)
    if biased:
        root = np.diag(np.diag(sigma) ** -0.5)
        w = np.block([[root, np.zeros((len(mu), 1))], [-mu[None] @ root, np.ones((1, 1))]])
        centered = np.block([[sigma, np.zeros((len(mu), 1))], [np.zeros((1, len(mu))), np.ones((1, 1))]])
    else:
        w, centered = d, sigma
    return Whitening(*(float(np.linalg.cond(k)) for k in (m, centered, d @ m @ d, w.T @ m @ w)), 1.0)


def assert_close(found: Whitening, expected: Whitening, rel: float = 1e-8) -> None:
    for name in ("identity", "centered", "diagonal", "lnb", "whitened"):
        number = getattr(expected, name)
        assert getattr(found, name) == (None if number is None else pytest.approx(number, rel=rel)), name


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("size", [1, 2, 9, 30])
def test_the_table_is_that_of_the_literal_matrices(size: int, biased: bool) -> None:
    x = features(200, size)
    second, mean = moments(x)
    found, summary = whitening(Dense(second), mean, biased, 200)
    assert_close(found, literal(x, biased))
    assert summary == spectrum(metric(Dense(second), mean, biased), 200)
    assert summary.condition_number == found.identity


def test_the_metric_is_the_second_moment_of_the_features_and_a_one() -> None:
    x = features(5, 9)
    second, mean = moments(x)
    ones = torch.cat([x, torch.ones(5, 1)], dim=1)
    expected = ones.T @ ones / 5
    assert torch.allclose(matrix(metric(Dense(second), mean, True)), expected, rtol=1e-12)
    low = metric(LowRank(x, 1 / 5), mean, True)
    assert isinstance(low, LowRank)
    assert torch.allclose(matrix(low), expected, rtol=1e-12)
    # Rows that are not the features themselves say nothing of the mean: the matrix is written out.
    factored = metric(LowRank(x * 2, 1 / 20), mean, True)
    assert torch.allclose(matrix(factored), expected, rtol=1e-12)
    assert metric(LowRank(x, 1 / 5), mean, False).size == 9


@pytest.mark.parametrize("biased", [True, False])
def test_groups_are_one_block_diagonal_matrix(biased: bool) -> None:
    x = torch.stack([features(100, 6, seed) * 3.0**seed for seed in range(4)])
    second, mean = moments(x)
    found, summary = whitening(Grouped(second), mean, biased, 100)
    assert found.identity == pytest.approx(
        np.linalg.cond(matrix(metric(Grouped(second), mean, biased)).numpy()), rel=1e-8
    )
    assert summary.size == 4 * (6 + biased)
    if biased:
        correlations = [np.linalg.eigvalsh(np.corrcoef(group.T.numpy())) for group in x]
        extremes = [1.0, *(v[0] for v in correlations), *(v[-1] for v in correlations)]
        assert found.lnb == pytest.approx(max(extremes) / min(extremes), rel=1e-8)
    one, _ = whitening(Grouped(second[:1]), mean[:1], biased, 100)
    assert_close(one, literal(x[0], biased))


def test_scales_and_shifts_of_the_features() -> None:
    """`lnb` sees neither, `diagonal` sees shifts, `identity` sees both."""
    x = features(300, 8)
    plain, _ = whitening(Dense(moments(x)[0]), moments(x)[1], True, 300)
    y = x * torch.logspace(-2, 2, 8, dtype=torch.float64) + torch.arange(8)
    moved, _ = whitening(Dense(moments(y)[0]), moments(y)[1], True, 300)
    z = x * torch.logspace(-2, 2, 8, dtype=torch.float64)
    scaled, _ = whitening(Dense(moments(z)[0]), moments(z)[1], True, 300)
    assert moved.lnb == pytest.approx(plain.lnb, rel=1e-6)
    assert scaled.diagonal == pytest.approx(plain.diagonal, rel=1e-6)
    assert moved.diagonal > 1.5 * plain.diagonal
    assert scaled.identity > 10 * plain.identity


def test_too_few_rows_are_singular_in_every_scaling() -> None:
    x = features(7, 12)
    mean = x.mean(0)
    for second in (LowRank(x, 1 / 7), Dense(moments(x)[0])):
        found, summary = whitening(second, mean, True, 7)
        assert found == NONE
        assert summary.rank == 7
        assert summary.size == 13
        assert summary.condition_number_nonzero > 1


def test_low_rank_with_enough_rows_is_the_dense_table() -> None:
    x = features(40, 12)
    second, mean = moments(x)
    low, summary = whitening(LowRank(x, 1 / 40), mean, True, 40)
    dense, expected = whitening(Dense(second), mean, True, 40)
    assert_close(low, dense)
    assert summary.quantiles == pytest.approx(expected.quantiles, rel=1e-9)


@pytest.mark.parametrize("biased", [True, False])
def test_a_dead_feature(biased: bool) -> None:
    x = features(100, 6)
    x[:, 2] = 0.0
    found, summary = whitening(Dense(moments(x)[0]), moments(x)[1], biased, 100)
    assert found == NONE
    assert summary.rank == 5 + biased
    assert summary.condition_number_nonzero == pytest.approx(literal(x[:, [0, 1, 3, 4, 5]], biased).identity, rel=1e-8)


def test_a_constant_feature_is_a_second_bias() -> None:
    x = features(100, 6)
    x[:, 2] = 0.7
    assert whitening(Dense(moments(x)[0]), moments(x)[1], True, 100)[0] == NONE
    # Without a bias the constant is the layer's only one: only removing the mean leaves nothing of it.
    found, _ = whitening(Dense(moments(x)[0]), moments(x)[1], False, 100)
    assert found.centered is None
    assert found.lnb == found.diagonal == pytest.approx(literal(x, False).diagonal, rel=1e-8)
    assert found.whitened == 1.0


def test_a_copied_feature() -> None:
    x = features(100, 6)
    x[:, 4] = 2 * x[:, 1]
    assert whitening(Dense(moments(x)[0]), moments(x)[1], True, 100)[0] == NONE


def test_a_badly_scaled_feature_hides_the_rank_only_from_the_plain_metric() -> None:
    x = features(100, 4)
    x[:, 0] *= 1e-9
    found, summary = whitening(Dense(moments(x)[0]), moments(x)[1], True, 100)
    assert summary.rank == 4
    assert found.identity is None
    rescaled = x.clone()
    rescaled[:, 0] *= 1e9
    assert found.lnb == pytest.approx(literal(rescaled, True).lnb, rel=1e-5)
    assert found.whitened == 1.0


def test_float32_products_with_a_copy_are_singular() -> None:
    x = torch.relu(torch.randn(2000, 30) + 0.5)
    x[:, 9] = 2 * x[:, 4] + x[:, 5]
    second, mean = (x.T @ x / 2000).double(), x.double().mean(0)
    found, summary = whitening(Dense(second), mean, True, 2000, resolution=torch.finfo(torch.float32).eps)
    assert summary.rank == 30
    assert found == NONE


def test_one_hot_features_of_a_vocabulary() -> None:
    counts = torch.arange(1, 30_523, dtype=torch.float64)
    frequencies = counts / counts.sum()
    found, summary = whitening(Diagonal(frequencies), frequencies, False, int(counts.sum()))
    assert_close(found, Whitening(30_522.0, None, 1.0, 1.0, 1.0))
    assert summary.rank == 30_522
    frequencies[3] = 0.0  # a token that never came
    found, summary = whitening(Diagonal(frequencies), frequencies, False, int(counts.sum()))
    assert found == NONE
    assert summary.rank == 30_521


def test_one_hot_features_agree_with_the_dense_table() -> None:
    x = torch.eye(5, dtype=torch.float64)[torch.randint(5, (200,))]
    second, mean = moments(x)
    for biased in (False, True):
        found = whitening(Diagonal(second.diagonal()), mean, biased, 200)[0]
        assert_close(found, whitening(Dense(second), mean, biased, 200)[0])


def test_a_diagonal_that_is_not_one_hot() -> None:
    mean = torch.tensor([0.5, 0.1, 0.2], dtype=torch.float64)
    values = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    for biased in (False, True):
        found = whitening(Diagonal(values), mean, biased, 100)[0]
        assert_close(found, whitening(Dense(values.diag()), mean, biased, 100)[0])
        assert found.centered is not None


def test_a_bias_alone() -> None:
    found, summary = whitening(Grouped(torch.zeros(4, 0, 0)), torch.zeros(4, 0), True, 10)
    assert found == Whitening(1.0, 1.0, 1.0, 1.0, 1.0)
    assert (summary.size, summary.rank) == (4, 4)


def test_nothing_at_all() -> None:
    assert whitening(Dense(torch.zeros(3, 3)), torch.zeros(3), False, 10)[0] == NONE
    assert whitening(Dense(torch.zeros(0, 0)), torch.zeros(0), False, 10)[0] == NONE


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), size=st.integers(1, 8), biased=st.booleans())
def test_order_of_features_does_not_matter(seed: int, size: int, biased: bool) -> None:
    x = features(50, size, seed)
    if bool((x.var(0) == 0).any()):
        return
    shuffled = x[:, torch.randperm(size, generator=torch.Generator().manual_seed(seed))]
    tables = [whitening(Dense(moments(y)[0]), moments(y)[1], biased, 50)[0] for y in (x, shuffled)]
    assert_close(tables[0], tables[1], rel=1e-6)
