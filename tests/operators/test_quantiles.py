"""Quantiles by counting against numpy on all products."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from curvlab.operators import quantiles as counting
from curvlab.operators.quantiles import order_statistics, quantiles


class Largest(TorchDispatchMode):
    """Sees the entries of the largest tensor that is made."""

    entries = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        tensors = (one for one in (made if isinstance(made, tuple | list) else [made]) if isinstance(one, torch.Tensor))
        self.entries = max(self.entries, *(one.numel() for one in tensors), 0)
        return made


LEVELS = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def all_products(lists: tuple[torch.Tensor, ...]) -> np.ndarray:
    return np.sort(np.concatenate([reduce(np.multiply.outer, rows).ravel() for rows in zip(*lists, strict=True)]))


@st.composite
def factor_lists(draw: st.DrawFn) -> tuple[torch.Tensor, ...]:
    groups = draw(st.integers(1, 3))
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    entry = st.one_of(st.just(0.0), st.just(1.0), st.floats(1e-12, 1e3))
    return tuple(
        torch.tensor(
            draw(st.lists(st.lists(entry, min_size=n, max_size=n), min_size=groups, max_size=groups)),
            dtype=torch.float64,
        )
        .sort(1)
        .values
        for n in sizes
    )


@pytest.mark.parametrize("cheap", [0, 2**16])
@settings(deadline=None, max_examples=30)
@given(lists=factor_lists())
def test_counting_gives_numpys_quantiles(cheap: int, lists: tuple[torch.Tensor, ...]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "CHEAP", cheap)  # 0: always search, even where sorting is cheaper
        found = quantiles(lists, LEVELS).numpy()
        products = all_products(lists)
        ordered, following = (x.numpy() for x in order_statistics(lists, torch.arange(len(products))))
    # Two roundings: of t/λ, and of products taken in another order.
    np.testing.assert_allclose(ordered, products, rtol=1e-15, atol=0)
    np.testing.assert_allclose(following, [*products[1:], products[-1]], rtol=1e-15, atol=0)
    np.testing.assert_allclose(found, np.quantile(products, LEVELS), rtol=1e-12, atol=0)


@pytest.mark.parametrize("zero", ["every group", "one group"])
def test_groups_in_which_a_factor_is_zero_have_zeros_alone(monkeypatch: pytest.MonkeyPatch, zero: str) -> None:
    monkeypatch.setattr(counting, "CHEAP", 0)
    last = [0.0, 0.0] if zero == "every group" else [1.0, 3.0]
    a, b, c = (
        [[0.0, 2.0], [0.0, 0.0], [1.0, 2.0]],
        [[0.0, 0.0], [1.0, 1.0], [1.0, 2.0]],
        [[1.0, 2.0], [1.0, 2.0], last],
    )
    lists = tuple(torch.tensor(values, dtype=torch.float64) for values in (a, b, c))
    np.testing.assert_allclose(quantiles(lists, LEVELS), np.quantile(all_products(lists), LEVELS), rtol=1e-12)


@pytest.mark.parametrize("sizes", [(300, 400), (9, 64, 150), (7, 8, 9, 40)])
def test_wide_spectra(sizes: tuple[int, ...]) -> None:
    lists = tuple((10 ** (-14 * torch.rand(1, n, dtype=torch.float64))).sort(1).values for n in sizes)
    np.testing.assert_allclose(quantiles(lists, LEVELS), np.quantile(all_products(lists), LEVELS), rtol=1e-12)


def test_the_products_are_not_formed_and_the_queries_come_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    lists = tuple(torch.rand(2, n, dtype=torch.float64).sort(1).values for n in (11, 13, 17))
    expected = np.quantile(all_products(lists), LEVELS)
    monkeypatch.setattr(counting, "CHEAP", 0)
    monkeypatch.setattr(counting, "PRODUCT_LIMIT", 10)
    monkeypatch.setattr(counting, "QUERIES", 100)
    with Largest() as formed:
        np.testing.assert_allclose(quantiles(lists, LEVELS), expected, rtol=1e-12)
    # A bisection's thresholds t/λ, for every rank, are over the products of the two shorter lists: no tensor is longer
    # than the products of all three, of which there are 4862.
    assert formed.entries < 4862


def test_millions_of_products_with_a_known_order() -> None:
    # 2^i · 2^(15 j) is every power of two from 2^0 to 2^59 once; the ones repeat each 20,000 times.
    powers = 2.0 ** torch.arange(15, dtype=torch.float64)[None]
    coarse = 2.0 ** (15 * torch.arange(4, dtype=torch.float64))[None]
    flat = torch.ones(1, 20_000, dtype=torch.float64)
    ranks = torch.tensor([0, 19_999, 20_000, 59 * 20_000, 60 * 20_000 - 1])
    here, following = order_statistics((powers, flat, coarse), ranks)
    assert here.tolist() == [1.0, 1.0, 2.0, 2.0**59, 2.0**59]
    assert following.tolist() == [1.0, 2.0, 2.0, 2.0**59, 2.0**59]
    ones = (flat, flat)
    assert quantiles(ones, (0.0, 0.5, 1.0)).tolist() == [1.0, 1.0, 1.0]


def test_all_zero() -> None:
    zeros = torch.zeros(1, 500, dtype=torch.float64)
    assert quantiles((zeros, zeros + 1), LEVELS).tolist() == [0.0] * 7
