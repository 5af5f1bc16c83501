"""gram(x) = xᵀx: equal to the plain product, symmetric bit for bit, for any width around the size of a block."""

from __future__ import annotations

import pytest
import torch

from curvlab.linalg.gram import LEAF, gram, mirrored, upper_gram


@pytest.mark.parametrize("width", [1, 7, LEAF - 1, LEAF, LEAF + 1, 2 * LEAF + 3, 700])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_plain_product(width: int, dtype: torch.dtype) -> None:
    x = torch.randn(50, width, dtype=dtype)
    product = gram(x)
    assert product.dtype == dtype
    assert torch.equal(product, product.mT)
    wanted = x.double().mT @ x.double()
    # The bound of a dot product of 50 terms: 50 eps Σ|x||x| ≤ 50 eps max Σx².
    bound = 50 * torch.finfo(dtype).eps * wanted.diagonal().max().item()
    torch.testing.assert_close(product.double(), wanted, rtol=0, atol=bound)


@pytest.mark.parametrize("batch", [(3,), (2, 3), (1,)])
@pytest.mark.parametrize("width", [5, 2 * LEAF + 1])
def test_batches(batch: tuple[int, ...], width: int) -> None:
    x = torch.randn(*batch, 20, width, dtype=torch.float64)
    product = gram(x)
    assert torch.equal(product, product.mT)
    torch.testing.assert_close(product, x.mT @ x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("view", ["row step", "columns first", "column step"])
def test_strided_views(view: str) -> None:
    width = LEAF + 10
    x = {
        "row step": torch.randn(60, width, dtype=torch.float64)[::3],
        "columns first": torch.randn(width, 20, dtype=torch.float64).mT,
        "column step": torch.randn(20, 2 * width, dtype=torch.float64)[:, ::2],
    }[view]
    torch.testing.assert_close(gram(x), x.mT @ x, rtol=1e-12, atol=1e-12)


def test_no_rows_give_zeros() -> None:
    assert torch.equal(gram(torch.empty(0, 300)), torch.zeros(300, 300))


def test_symmetric_where_blas_is_not() -> None:
    # A plain float32 product of three columns laid out first differs from its transpose for some numbers of rows.
    for rows in range(1, 100):
        product = gram(torch.randn(3, rows).mT)
        assert torch.equal(product, product.mT)


def test_needs_no_graph() -> None:
    assert not gram(torch.randn(4, 300, requires_grad=True)).requires_grad


@pytest.mark.parametrize("width", [1, 9, LEAF, 3 * LEAF + 5])
def test_what_stands_below_the_diagonal_means_nothing(width: int) -> None:
    x = torch.randn(2, 30, width, dtype=torch.float64)
    square = upper_gram(x)
    square[torch.ones_like(square).tril(-1) > 0] = torch.nan
    torch.testing.assert_close(mirrored(square), x.mT @ x, rtol=1e-12, atol=1e-12)
