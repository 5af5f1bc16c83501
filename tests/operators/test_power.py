"""Powers of damped operators against numpy, alone and in batches, and what failing looks like."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from linalg.spectra import Reads, conditioned

from curvlab.errors import NumericalError
from curvlab.linalg.roots import inverse_root
from curvlab.operators.damp import exact, factored, per_factor
from curvlab.operators.eigenbasis import eigenbases, eigenbasis
from curvlab.operators.operator import Dense, Diagonal, Grouped, GroupedKronecker, Kronecker, LowRank, Operator
from curvlab.operators.power import power, powers, reason
from curvlab.operators.product import product
from curvlab.operators.woodbury import Woodbury, WoodburyInverse


def psd(*shape: int) -> torch.Tensor:
    x = torch.randn(*shape, shape[-1] + 2, dtype=torch.float64)
    return x @ x.mT


def dense(operator: Operator) -> np.ndarray:
    return product(operator, torch.eye(operator.size).double()).numpy()


def dense_power(operator: Operator, exponent: float) -> np.ndarray:
    values, vectors = np.linalg.eigh(dense(operator))
    return (vectors * values**exponent) @ vectors.T


CASES = {
    "dense": lambda: Dense(conditioned(4, 100.0)),
    "grouped": lambda: Grouped(torch.stack([conditioned(3, 10.0, seed) for seed in range(2)])),
    "diagonal": lambda: Diagonal(torch.rand(4).double() + 0.1),
    "matrix block": lambda: factored(0.1)(Kronecker((Dense(psd(3)), Dense(psd(4))))),
    "embedding block": lambda: per_factor(0.1)(Kronecker((Dense(psd(3)), Diagonal(torch.rand(4).double())))),
    "convolution": lambda: per_factor(0.1)(Kronecker((Dense(psd(3)), Dense(psd(2)), Dense(psd(4))))),
    "nested": lambda: Kronecker((Kronecker((Dense(psd(2)), Diagonal(torch.ones(2).double()))), Grouped(psd(2, 2)))),
    "grouped matrix block": lambda: per_factor(0.1)(GroupedKronecker((Grouped(psd(2, 3)), Grouped(psd(2, 4))))),
    "exact": lambda: exact(0.1)(Kronecker((Dense(psd(3)), Dense(psd(4))))),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("exponent", [-1.0, -1 / 2, -1 / 4, -1 / 6])
def test_the_power_of_numpy(name: str, exponent: float) -> None:
    operator = CASES[name]()
    before = dense(operator)
    expected = dense_power(operator, exponent)
    np.testing.assert_allclose(dense(power(operator, exponent)), expected, atol=1e-9 * np.abs(expected).max())
    np.testing.assert_array_equal(dense(operator), before)


@given(r=st.integers(1, 6), d=st.integers(7, 12), log_lam=st.floats(-4, 4), scale=st.floats(0.01, 100))
@settings(max_examples=50, deadline=None)
def test_woodbury_is_the_dense_inverse(r: int, d: int, log_lam: float, scale: float) -> None:
    rows = torch.randn(r, d, generator=torch.Generator().manual_seed(r * d)).double()
    damped = exact(10**log_lam)(LowRank(rows, scale))
    assert isinstance(damped, Woodbury)
    found = power(damped, -1)
    assert isinstance(found, WoodburyInverse)
    expected = np.linalg.inv(scale * rows.numpy().T @ rows.numpy() + 10**log_lam * np.eye(d))
    np.testing.assert_allclose(dense(found), expected, rtol=1e-6, atol=1e-9 * np.abs(expected).max())


def test_woodbury_of_zero_rows_is_a_multiple_of_the_identity() -> None:
    found = power(exact(0.5)(LowRank(torch.zeros(2, 4).double(), 1.0)))
    np.testing.assert_allclose(dense(found), 2 * np.eye(4), rtol=1e-12)


def test_exact_damping_of_kfac_is_the_dense_solution() -> None:
    # grosse eq. 23, from undamped and singular factors.
    g, a = psd(3), torch.randn(4, 2).double()
    a = a @ a.mT
    m = torch.randn(3, 4).double()
    found = product(power(exact(0.01)(Kronecker((Dense(g), Dense(a))))), m)
    expected = torch.linalg.solve(torch.kron(g, a) + 0.01 * torch.eye(12).double(), m.flatten())
    assert torch.allclose(found.flatten(), expected, rtol=1e-9)


def test_a_power_is_a_step_on_the_way_to_the_inverse() -> None:
    operator = CASES["matrix block"]()
    x = torch.randn(3, 4).double()
    root, inverse = power(operator, -1 / 4), power(operator, -1)
    y = x
    for _ in range(4):
        y = product(root, y)
    assert torch.allclose(y, product(inverse, x), rtol=1e-8)
    assert torch.allclose(product(operator, product(inverse, x)), x, rtol=1e-8, atol=1e-10)


def test_both_root_methods_give_the_same_shampoo() -> None:
    operator = CASES["convolution"]()
    newton = power(operator, -1 / 6, partial(inverse_root, method="newton"))
    eigh = power(operator, -1 / 6, partial(inverse_root, method="eigh"))
    np.testing.assert_allclose(dense(newton), dense(eigh), rtol=1e-5, atol=1e-6)


def test_many_at_once_equals_one_by_one_and_equal_sizes_share_a_call() -> None:
    operators = [make() for make in CASES.values()]
    exponents = [-1.0 if i % 2 else -1 / 4 for i in range(len(operators))]
    calls = []

    def root(stack: torch.Tensor, p: int):
        calls.append((p, stack.shape[-1]))
        return inverse_root(stack, p)

    found = powers(operators, exponents, root)
    for operator, exponent, one in zip(operators, exponents, found, strict=True):
        np.testing.assert_allclose(dense(one), dense(power(operator, exponent)), rtol=1e-10, atol=1e-12)
    assert len(calls) == len(set(calls))
    assert powers([], []) == []


def test_a_failure_is_none_and_spoils_no_other() -> None:
    good = Kronecker((Dense(conditioned(3, 10.0)), Dense(conditioned(4, 10.0))))
    nan = Kronecker((Dense(conditioned(3, 10.0) * float("nan")), Dense(conditioned(4, 10.0))))
    indefinite = Dense(-conditioned(3, 10.0))
    zero, negative = Diagonal(torch.tensor([0.0, 1.0])), Diagonal(torch.tensor([-1.0, 1.0]))
    singular = eigenbasis(Dense(torch.zeros(3, 3).double()))
    found = powers([nan, good, indefinite, zero, negative, singular], [-1.0] * 6)
    assert [one is None for one in found] == [True, False, True, True, True, True]
    np.testing.assert_allclose(dense(found[1]), np.linalg.inv(dense(good)), rtol=1e-9)


@pytest.mark.parametrize(
    ("operator", "words"),
    [
        (Kronecker((Dense(torch.eye(3)), Dense(torch.full((4, 4), float("nan"))))), "16 numbers of a factor of size 4"),
        (Kronecker((Dense(-torch.eye(3)), Dense(torch.eye(4)))), "size 3 has eigenvalues from -1 to -1"),
        (Diagonal(torch.zeros(3)), "size 3 has eigenvalues from 0 to 0, not all positive"),
    ],
)
def test_one_failure_is_a_sentence_with_the_reason(operator: Operator, words: str) -> None:
    with pytest.raises(NumericalError, match=words):
        power(operator)


def test_the_reason_names_the_worst_factor() -> None:
    operator = Kronecker((Dense(conditioned(3, 10.0)), Dense(conditioned(5, 1e6)), Diagonal(torch.ones(2).double())))
    assert reason(operator) == "a factor of size 5 has condition number 1e+06"
    assert reason(exact(0.0)(Dense(torch.eye(2)))) == "a factor of size 2 has condition number 1"


def test_what_is_not_offered_is_refused() -> None:
    with pytest.raises(ValueError, match="damp it first"):
        power(LowRank(torch.ones(1, 3), 1.0))
    with pytest.raises(ValueError, match=r"inverse is offered, not the power -0\.25"):
        power(exact(1.0)(LowRank(torch.ones(1, 3), 1.0)), -0.25)
    for exponent in (1.0, 0.0, -2.0, -0.3):
        with pytest.raises(ValueError, match="whole number"):
            power(Dense(torch.eye(2)), exponent)

    class Unknown(Operator):
        size = 1

    with pytest.raises(TypeError, match="Unknown"):
        power(Unknown())


def test_the_device_is_asked_once_for_each_size() -> None:
    operators = [per_factor(0.1)(Kronecker((Dense(psd(3)), Dense(psd(4))))) for _ in range(5)]
    with Reads() as reads:
        powers(operators, [-1.0] * 5)
    assert reads.count == 2
    bases = eigenbases(operators)
    with Reads() as reads:
        powers([exact(0.1)(one) for one in bases], [-1.0] * 5)
    assert reads.count == 0
