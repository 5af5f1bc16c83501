"""The whitening tables against numpy on the literal matrices of lnb 3.3 and 3.5."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from analyses.literal_whitening import NONE, assert_close, features, literal, literal_over_range, moments
from hypothesis import given, settings
from hypothesis import strategies as st

from curvlab.analyses.whitening import Whitening, metric, whitening
from curvlab.operators.matrix import matrix
from curvlab.operators.operator import Dense, Diagonal, Grouped, LowRank
from curvlab.operators.spectrum import spectrum


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("size", [1, 2, 9, 30])
def test_the_table_is_that_of_the_literal_matrices(size: int, biased: bool) -> None:
    x = features(200, size)
    second, mean = moments(x)
    found, over_range, summary = whitening(Dense(second), mean, biased, 200)
    assert_close(found, literal(x, biased))
    assert summary == spectrum(metric(Dense(second), mean, biased), 200)
    assert summary.condition_number == found.identity
    assert over_range == found


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
    found, _, summary = whitening(Grouped(second), mean, biased, 100)
    assert found.identity == pytest.approx(
        np.linalg.cond(matrix(metric(Grouped(second), mean, biased)).numpy()), rel=1e-8
    )
    assert summary.size == 4 * (6 + biased)
    if biased:
        correlations = [np.linalg.eigvalsh(np.corrcoef(group.T.numpy())) for group in x]
        extremes = [1.0, *(v[0] for v in correlations), *(v[-1] for v in correlations)]
        assert found.lnb == pytest.approx(max(extremes) / min(extremes), rel=1e-8)
    one, *_ = whitening(Grouped(second[:1]), mean[:1], biased, 100)
    assert_close(one, literal(x[0], biased))


def test_scales_and_shifts_of_the_features() -> None:
    """`lnb` sees neither, `diagonal` sees shifts, `identity` sees both."""
    x = features(300, 8)
    plain, *_ = whitening(Dense(moments(x)[0]), moments(x)[1], True, 300)
    y = x * torch.logspace(-2, 2, 8, dtype=torch.float64) + torch.arange(8)
    moved, *_ = whitening(Dense(moments(y)[0]), moments(y)[1], True, 300)
    z = x * torch.logspace(-2, 2, 8, dtype=torch.float64)
    scaled, *_ = whitening(Dense(moments(z)[0]), moments(z)[1], True, 300)
    assert moved.lnb == pytest.approx(plain.lnb, rel=1e-6)
    assert scaled.diagonal == pytest.approx(plain.diagonal, rel=1e-6)
    assert moved.diagonal > 1.5 * plain.diagonal
    assert scaled.identity > 10 * plain.identity


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("rows", [2, 7, 11, 12])
def test_too_few_rows_are_singular_in_every_scaling(rows: int, biased: bool) -> None:
    x = features(rows, 12 + (not biased))
    x[:, 5] = 0.0
    x[:, 6] = 0.4
    x[:, 7] = -3 * x[:, 1]
    for second in (LowRank(x, 1 / rows), Dense(moments(x)[0])):
        found, over_range, summary = whitening(second, x.mean(0), biased, rows)
        assert found == NONE
        assert summary.rank <= rows
        assert summary.size == 13
        assert_close(over_range, literal_over_range(x, biased))


def test_few_rows_are_never_multiplied_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Matrices of 40 rows for 60,000 features, some dead, in pieces, and the numbers of the whole."""
    sizes = []
    plain = torch.linalg.eigvalsh

    def watched(matrix: torch.Tensor) -> torch.Tensor:
        sizes.append(matrix.shape[-1])
        return plain(matrix)

    monkeypatch.setattr(torch.linalg, "eigvalsh", watched)
    x = torch.relu(torch.randn(40, 60_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.3)
    x[:, ::7] = 0.0
    x[:, 1::7] *= 5.0
    before = x.clone()
    for biased in (True, False):
        _, over_range, _ = whitening(LowRank(x, 1 / 40), x.mean(0), biased, 40, levels=())
        assert_close(over_range, literal_over_range(x, biased))
    assert max(sizes) == 40
    assert len(sizes) == 4 + 3  # one list for each matrix; without a bias lnb is diagonal
    assert torch.equal(x, before)


def test_low_rank_with_enough_rows_is_the_dense_table() -> None:
    x = features(40, 12)
    second, mean = moments(x)
    low, _, summary = whitening(LowRank(x, 1 / 40), mean, True, 40)
    dense, _, expected = whitening(Dense(second), mean, True, 40)
    assert_close(low, dense)
    assert summary.quantiles == pytest.approx(expected.quantiles, rel=1e-9)


@pytest.mark.parametrize("biased", [True, False])
def test_a_dead_feature_is_dropped_from_the_range(biased: bool) -> None:
    x = features(100, 6)
    x[:, 2] = 0.0
    found, over_range, summary = whitening(Dense(moments(x)[0]), moments(x)[1], biased, 100)
    assert found == NONE
    assert summary.rank == 5 + biased
    assert_close(over_range, literal(x[:, [0, 1, 3, 4, 5]], biased))


def test_a_constant_feature_is_a_second_bias() -> None:
    x = features(100, 6)
    x[:, 2] = 0.7
    others = literal(x[:, [0, 1, 3, 4, 5]], True)
    found, over_range, _ = whitening(Dense(moments(x)[0]), moments(x)[1], True, 100)
    assert found == NONE
    assert over_range.centered == pytest.approx(others.centered, rel=1e-8)
    assert over_range.lnb == pytest.approx(others.lnb, rel=1e-8)
    assert_close(over_range, literal_over_range(x, True))
    # Without a bias the constant is the layer's only one: only removing the mean leaves nothing of it.
    found, over_range, _ = whitening(Dense(moments(x)[0]), moments(x)[1], False, 100)
    assert found.centered is None
    assert found.lnb == found.diagonal == pytest.approx(literal(x, False).diagonal, rel=1e-8)
    assert found.whitened == 1.0
    assert_close(over_range, literal_over_range(x, False))


@pytest.mark.parametrize("biased", [True, False])
def test_a_copied_feature(biased: bool) -> None:
    x = features(100, 6)
    x[:, 4] = 2 * x[:, 1]
    found, over_range, _ = whitening(Dense(moments(x)[0]), moments(x)[1], biased, 100)
    assert found == NONE
    assert_close(over_range, literal_over_range(x, biased))


@pytest.mark.parametrize("biased", [True, False])
def test_each_group_drops_features_of_its_own(biased: bool) -> None:
    x = torch.stack([features(100, 6, seed) * 3.0**seed for seed in range(3)])
    x[0, :, 1] = 0.0
    x[1, :, 4] = 0.7
    second, mean = moments(x)
    found, over_range, _ = whitening(Grouped(second), mean, biased, 100)
    assert found.identity is found.centered is None
    whole = np.linalg.eigvalsh(matrix(metric(Grouped(second), mean, biased)).numpy())
    assert over_range.identity == pytest.approx(whole[-1] / whole[whole > 1e-10 * whole[-1]][0], rel=1e-8)
    correlations = [
        np.corrcoef(x[g][:, keep].T.numpy()) for g, keep in enumerate(([0, 2, 3, 4, 5], [0, 1, 2, 3, 5], range(6)))
    ]
    values = np.concatenate([[1.0], *(np.linalg.eigvalsh(c) for c in correlations)])
    if biased:
        assert over_range.lnb == pytest.approx(values.max() / values.min(), rel=1e-8)
    else:
        assert over_range.lnb == over_range.diagonal


def test_where_nothing_varies_only_the_bias_is_left() -> None:
    x = torch.full((50, 3), 0.7, dtype=torch.float64)
    assert whitening(Dense(moments(x)[0]), moments(x)[1], True, 50)[1].centered == 1.0
    assert whitening(LowRank(x[:2], 1 / 2), x[0], True, 2)[1].lnb == 1.0
    over_range = whitening(Dense(moments(x)[0]), moments(x)[1], False, 50)[1]
    assert_close(over_range, Whitening(1.0, None, 1.0, 1.0, 1.0))


def test_a_badly_scaled_feature_hides_the_rank_only_from_the_plain_metric() -> None:
    x = features(100, 4)
    x[:, 0] *= 1e-9
    found, _, summary = whitening(Dense(moments(x)[0]), moments(x)[1], True, 100)
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
    found, _, summary = whitening(Dense(second), mean, True, 2000, resolution=torch.finfo(torch.float32).eps)
    assert summary.rank == 30
    assert found == NONE


def test_one_hot_features_of_a_vocabulary() -> None:
    counts = torch.arange(1, 30_523, dtype=torch.float64)
    frequencies = counts / counts.sum()
    found, over_range, summary = whitening(Diagonal(frequencies), frequencies, False, int(counts.sum()))
    assert_close(found, Whitening(30_522.0, None, 1.0, 1.0, 1.0))
    assert summary.rank == 30_522
    # Zero and 30,521 roots between neighbours: from above the rarest token's frequency to under the commonest's.
    assert 30_521 / 2 < over_range.centered < 30_522
    assert (over_range.identity, over_range.diagonal, over_range.lnb) == (found.identity, 1.0, 1.0)
    frequencies[3] = 0.0  # a token that never came
    found, over_range, summary = whitening(Diagonal(frequencies), frequencies, False, int(counts.sum()))
    assert found == NONE
    assert over_range.identity == pytest.approx(30_522.0)
    assert over_range.diagonal == over_range.whitened == 1.0
    assert summary.rank == 30_521


@settings(deadline=None, max_examples=60)
@given(
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(any),
    biased=st.booleans(),
    padding=st.integers(0, 20),
)
def test_one_hot_features_agree_with_the_dense_tables(counts: list[int], biased: bool, padding: int) -> None:
    """Ties, one token, tokens that never came, and positions of padding that are no token at all."""
    rows = sum(counts) + padding
    mean = torch.tensor(counts, dtype=torch.float64) / rows
    found, over_range, _ = whitening(Diagonal(mean), mean, biased, rows)
    dense, dense_over_range, _ = whitening(Dense(mean.diag()), mean, biased, rows)
    assert_close(found, dense)
    assert_close(over_range, dense_over_range)
    x = torch.eye(len(counts), dtype=torch.float64).repeat_interleave(torch.tensor(counts), 0)
    x = torch.cat([x, x.new_zeros(padding, len(counts))])
    if biased or bool((x.amax(0) > x.amin(0)).any()):
        assert_close(over_range, literal_over_range(x, biased))
    else:
        assert over_range.centered is None


def test_a_diagonal_that_is_not_one_hot() -> None:
    mean = torch.tensor([0.5, 0.1, 0.0, 0.2], dtype=torch.float64)
    values = torch.tensor([1.0, 2.0, 7.0, 3.0], dtype=torch.float64)
    for biased in (False, True):
        for found, expected in zip(
            whitening(Diagonal(values), mean, biased, 100)[:2],
            whitening(Dense(values.diag()), mean, biased, 100)[:2],
            strict=True,
        ):
            assert_close(found, expected)
            assert found.centered is not None


def test_a_bias_alone() -> None:
    found, _, summary = whitening(Grouped(torch.zeros(4, 0, 0)), torch.zeros(4, 0), True, 10)
    assert found == Whitening(1.0, 1.0, 1.0, 1.0, 1.0)
    assert (summary.size, summary.rank) == (4, 4)


def test_nothing_at_all() -> None:
    for second in (torch.zeros(3, 3), torch.zeros(0, 0)):
        assert whitening(Dense(second), torch.zeros(len(second)), False, 10)[:2] == (NONE, NONE)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000), rows=st.integers(2, 40), size=st.integers(1, 12), biased=st.booleans())
def test_the_range_is_that_of_the_data_in_every_form(seed: int, rows: int, size: int, biased: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = features(rows, size, seed) * (torch.rand(size, generator=generator) > 0.3)
    x[:, 0] = torch.randn(rows, dtype=torch.float64, generator=generator)
    expected = literal_over_range(x, biased)
    second, mean = moments(x)
    for form in (Dense(second), Grouped(second[None]), LowRank(x, 1 / rows)):
        found, over_range, summary = whitening(form, mean[None] if isinstance(form, Grouped) else mean, biased, rows)
        assert_close(over_range, expected, rel=1e-6)
        for name in ("identity", "centered", "diagonal", "lnb"):
            assert getattr(found, name) in (None, getattr(over_range, name))
        assert over_range.identity == summary.condition_number_nonzero


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), size=st.integers(1, 8), biased=st.booleans())
def test_order_of_features_does_not_matter(seed: int, size: int, biased: bool) -> None:
    x = features(50, size, seed)
    if bool((x.var(0) == 0).any()):
        return
    shuffled = x[:, torch.randperm(size, generator=torch.Generator().manual_seed(seed))]
    tables = [whitening(Dense(moments(y)[0]), moments(y)[1], biased, 50)[0] for y in (x, shuffled)]
    assert_close(tables[0], tables[1], rel=1e-6)
