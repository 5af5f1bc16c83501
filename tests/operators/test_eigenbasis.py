"""The eigenbasis of Kronecker products against numpy's eigendecomposition of the written-out matrix."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from curvlab.errors import NumericalError
from curvlab.operators.eigenbasis import Eigenbasis, eigenbases, eigenbasis
from curvlab.operators.eigenvalues import eigenvalues
from curvlab.operators.matrix import matrix
from curvlab.operators.operator import Dense, Diagonal, Grouped, GroupedKronecker, Kronecker, LowRank
from curvlab.operators.product import product
from curvlab.operators.spectrum import spectrum
from curvlab.operators.trace import trace


def psd(*shape: int) -> torch.Tensor:
    x = torch.randn(*shape, shape[-1] + 2, dtype=torch.float64)
    return x @ x.mT


def dense(operator: Eigenbasis) -> np.ndarray:
    return product(operator, torch.eye(operator.size).double()).numpy()


CASES = {
    "dense": lambda: Dense(psd(4)),
    "grouped": lambda: Grouped(psd(3, 2)),
    "diagonal": lambda: Diagonal(torch.rand(4).double()),
    "matrix block": lambda: Kronecker((Dense(psd(3)), Dense(psd(4)))),
    "embedding block": lambda: Kronecker((Dense(psd(3)), Diagonal(torch.rand(4).double()))),
    "diagonal first": lambda: Kronecker((Diagonal(torch.rand(4).double()), Dense(psd(3)))),
    "convolution": lambda: Kronecker((Dense(psd(3)), Dense(psd(2)), Dense(psd(4)))),
    "grouped matrix block": lambda: GroupedKronecker((Grouped(psd(2, 3)), Grouped(psd(2, 4)))),
}


@pytest.mark.parametrize("name", CASES)
def test_the_same_operator_in_its_eigenbasis(name: str) -> None:
    operator = CASES[name]()
    found, written = eigenbasis(operator), matrix(operator).numpy()
    assert found.size == operator.size
    np.testing.assert_allclose(dense(found), written, atol=1e-11 * np.abs(written).max())
    assert trace(found) == pytest.approx(trace(operator))
    np.testing.assert_allclose(eigenvalues(found), np.linalg.eigvalsh(written), atol=1e-11 * np.abs(written).max())
    assert spectrum(found).condition_number == pytest.approx(np.linalg.cond(written), rel=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_rotation_makes_the_operator_diagonal(name: str) -> None:
    operator = CASES[name]()
    found, written = eigenbasis(operator), matrix(operator)
    q = found.rotated(torch.eye(operator.size).double())  # row e_i to Qᵀe_i: this is Q
    assert torch.allclose(q.mT @ q, torch.eye(operator.size).double(), atol=1e-12)
    assert torch.allclose(q.mT @ written @ q, found.values.flatten().diag(), atol=1e-10)


def test_second_moments_of_rotated_gradients_are_the_diagonal_of_the_fisher_there() -> None:
    # EKFAC: the best diagonal in this basis, for per-example gradients (ren 1.1).
    gradients = torch.randn(50, 3, 4).double()
    basis = eigenbasis(Kronecker((Dense(psd(3)), Dense(psd(4)))))
    ekfac = Eigenbasis(basis.bases, basis.rotated(gradients).square().mean(0, keepdim=True))
    fisher = gradients.flatten(1).mT @ gradients.flatten(1) / 50
    q = basis.rotated(torch.eye(12).double())
    assert torch.allclose(q.mT @ torch.tensor(dense(ekfac)) @ q, (q.mT @ fisher @ q).diagonal().diag(), atol=1e-12)


def test_rounding_below_zero_becomes_zero() -> None:
    q, _ = torch.linalg.qr(torch.randn(4, 4).double())
    found = eigenbasis(Dense((q * torch.tensor([-1e-9, 0.0, 1.0, 2.0]).double()) @ q.mT))
    assert found.values.min().item() == 0.0


def test_many_at_once_and_none_where_there_is_none() -> None:
    good = Kronecker((Dense(psd(3)), Dense(psd(4))))
    nan = Kronecker((Dense(psd(3)), Dense(psd(4) * float("nan"))))
    infinite = Kronecker((Dense(psd(3)), Diagonal(torch.tensor([1.0, float("inf")]).double())))
    ready = eigenbasis(good)
    found = eigenbases([good, nan, infinite, ready, Grouped(psd(2, 3))])
    assert [one is None for one in found] == [False, True, True, False, False]
    assert found[3] is ready
    assert torch.equal(found[0].values, ready.values)
    assert eigenbases([]) == []
    with pytest.raises(NumericalError, match="size 12 does not exist"):
        eigenbasis(nan)


def test_other_factors_and_shapes_are_refused() -> None:
    with pytest.raises(TypeError, match="LowRank"):
        eigenbasis(Kronecker((LowRank(torch.ones(1, 2), 1.0), Dense(psd(2)))))
    with pytest.raises(ValueError, match="do not fit"):
        Eigenbasis((torch.eye(3)[None], None), torch.ones(1, 2, 3))
    with pytest.raises(ValueError, match="do not fit"):
        Eigenbasis((None,), torch.ones(1, 2, 3))
