"""(LLᵀ)⁻¹ as an operator against numpy's inverse, and what becomes of matrices that have none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from curvlab.operators.cholesky_inverse import cholesky_inverse_operator
from curvlab.operators.pack import pack, unpack
from curvlab.operators.product import product


def positive(size: int, smallest: float, dtype: torch.dtype) -> Tensor:
    """Eigenvalues from `smallest` to 1, evenly spaced by ratio."""
    torch.manual_seed(size)
    q, _ = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64))
    return ((q * torch.logspace(0, float(np.log10(smallest)), size, dtype=torch.float64)) @ q.mT).to(dtype)


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5), (1, 5)])
def test_it_applies_the_inverse(shape: tuple[int, ...]) -> None:
    a = positive(5, 1e-3, torch.float64)
    x = torch.randn(shape, dtype=torch.float64)
    operator = cholesky_inverse_operator(a)
    assert operator is not None
    want = x.numpy() @ np.linalg.inv(a.numpy())
    torch.testing.assert_close(product(operator, x), torch.from_numpy(want), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(product(unpack(pack(operator)), x), product(operator, x))


def test_only_the_lower_triangle_is_read() -> None:
    a = positive(6, 1e-2, torch.float64)
    x = torch.randn(6, dtype=torch.float64)
    whole, half = cholesky_inverse_operator(a), cholesky_inverse_operator(a.tril())
    assert whole is not None
    assert half is not None
    torch.testing.assert_close(product(half, x), product(whole, x), rtol=0, atol=0)


def test_a_float32_matrix_that_its_type_cannot_resolve_goes_by_float64() -> None:
    a = positive(40, 1e-7, torch.float32)
    operator = cholesky_inverse_operator(a)
    assert operator is not None
    assert operator.factor.dtype == torch.float32
    x = torch.randn(40)
    back = a.double() @ product(operator, x).double()
    assert float((back - x).norm() / x.norm()) < 0.2


@pytest.mark.parametrize("spoil", [float("nan"), float("inf"), -1.0])
def test_no_inverse_is_none(spoil: float) -> None:
    a = torch.eye(4)
    a[2, 2] = spoil
    assert cholesky_inverse_operator(a) is None
