"""FOP's products with MMᵀ in both orders, and its norm where the matrix is large."""

from __future__ import annotations

import pytest
import torch

from curvlab.optim.fop.learned_matrix import LearnedMatrix, symmetric_product

pytestmark = pytest.mark.usefixtures("float64")

TIGHT = {"rtol": 1e-9, "atol": 1e-12}


@pytest.mark.parametrize(("n", "d", "k"), [(1, 7, 7), (3, 7, 2), (50, 7, 7), (50, 7, 1), (7, 7, 7), (20, 30, 30)])
def test_both_orders_of_the_products_agree_with_the_dense_one(n: int, d: int, k: int) -> None:
    a, b, m = torch.randn(n, d), torch.randn(n, d), torch.randn(d, k)
    torch.testing.assert_close(symmetric_product(a, b, m), (a.T @ b + b.T @ a) @ m, **TIGHT)
    torch.testing.assert_close(LearnedMatrix().apply(m, a), a @ (m @ m.T), **TIGHT)
    torch.testing.assert_close(LearnedMatrix(rank=k).apply(m, a), a @ (m @ m.T) + a, **TIGHT)


def test_the_norm_of_a_large_matrix_is_measured_on_few_rows() -> None:
    """Beyond 128 dimensions ‖P‖ is an estimate: 128 random rows; the hypergradient is that of the estimate."""
    m = torch.eye(500) + 0.02 * torch.randn(500, 500)
    form, rows, before = LearnedMatrix(normalized=True), torch.randn(4, 500), torch.randn(4, 500)
    p = m @ m.T
    exact = rows @ p * 500**0.5 / torch.linalg.matrix_norm(p)
    ratio = form.apply(m, rows) / exact
    assert ratio.std() < 1e-9  # one factor for all
    assert abs(ratio.mean().item() - 1) < 0.02
    found = form.pull(m, rows, before)
    leaf = m.clone().requires_grad_()
    inner = (rows * form.apply(leaf, before)).sum()
    torch.testing.assert_close(found, torch.autograd.grad(inner, leaf)[0], **TIGHT)
