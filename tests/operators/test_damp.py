"""Every damping against the same damping of written-out matrices."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from linalg.spectra import Reads

from curvlab.operators.damp import exact, factored, per_factor
from curvlab.operators.eigenbasis import Eigenbasis, eigenbasis
from curvlab.operators.matrix import matrix
from curvlab.operators.mean_eigenvalue import mean_eigenvalue
from curvlab.operators.operator import Dense, Diagonal, Grouped, GroupedKronecker, Kronecker, LowRank, Operator
from curvlab.operators.product import product
from curvlab.operators.trace import trace
from curvlab.operators.woodbury import Woodbury


def psd(*shape: int) -> torch.Tensor:
    x = torch.randn(*shape, shape[-1] + 2, dtype=torch.float64)
    return x @ x.mT


def dense(operator: Operator) -> np.ndarray:
    return product(operator, torch.eye(operator.size).double()).numpy()


CASES = {
    "dense": lambda: Dense(psd(4)),
    "grouped": lambda: Grouped(psd(3, 2)),
    "diagonal": lambda: Diagonal(torch.rand(4).double()),
    "low rank": lambda: LowRank(torch.randn(2, 5).double(), 0.5),
    "more rows than columns": lambda: LowRank(torch.randn(6, 5).double(), 0.5),
    "woodbury": lambda: Woodbury(torch.randn(2, 5).double(), 0.5, 0.25),
    "matrix block": lambda: Kronecker((Dense(psd(3)), Dense(psd(4)))),
    "embedding block": lambda: Kronecker((Dense(psd(3)), Diagonal(torch.rand(4).double()))),
    "convolution": lambda: Kronecker((Dense(psd(3)), Dense(psd(2)), Dense(psd(4)))),
    "grouped matrix block": lambda: GroupedKronecker((Grouped(psd(2, 3)), Grouped(psd(2, 4)))),
    "eigenbasis": lambda: eigenbasis(GroupedKronecker((Grouped(psd(2, 3)), Grouped(psd(2, 4))))),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("tensor", [False, True])
def test_exact_adds_lambda_to_the_diagonal(name: str, tensor: bool) -> None:
    operator = CASES[name]()
    before = dense(operator)
    lam = torch.tensor(0.3).double() if tensor else 0.3
    np.testing.assert_allclose(dense(exact(lam)(operator)), before + 0.3 * np.eye(len(before)), atol=1e-10)
    np.testing.assert_array_equal(dense(operator), before)


@pytest.mark.parametrize("name", CASES)
def test_the_mean_eigenvalue_is_the_trace_over_the_size(name: str) -> None:
    operator = CASES[name]()
    assert mean_eigenvalue(operator).item() == pytest.approx(np.trace(dense(operator)) / operator.size)


def test_the_forms() -> None:
    assert isinstance(exact(1.0)(CASES["matrix block"]()), Eigenbasis)
    assert isinstance(exact(1.0)(CASES["low rank"]()), Woodbury)
    assert isinstance(exact(1.0)(CASES["more rows than columns"]()), Dense)
    assert isinstance(factored(1.0)(CASES["matrix block"]()), Kronecker)


def test_the_trace_of_a_damped_low_rank_operator() -> None:
    operator = CASES["woodbury"]()
    assert trace(operator) == pytest.approx(np.trace(dense(operator)))


@given(log_g=st.floats(-12, 12), log_a=st.floats(-12, 12), lam=st.floats(1e-6, 1e3), pi=st.sampled_from(["trace", 1.0]))
@settings(max_examples=40, deadline=None)
def test_factored_damping_of_two_factors(log_g: float, log_a: float, lam: float, pi: str | float) -> None:
    g, a = 10**log_g * psd(3), 10**log_a * psd(4)
    found = factored(lam, pi)(Kronecker((Dense(g), Dense(a))))
    share = math.sqrt((a.trace() / 4) / (g.trace() / 3)) if pi == "trace" else 1.0
    root, eye_g, eye_a = math.sqrt(lam), torch.eye(3).double(), torch.eye(4).double()
    expected = (g + root / share * eye_g, a + share * root * eye_a)
    for factor, one in zip(found.factors, expected, strict=True):
        assert torch.allclose(factor.matrix, one, rtol=1e-10, atol=0)


def test_factored_damping_is_above_exact_damping() -> None:
    operator = CASES["matrix block"]()
    for pi in ("trace", 1.0, 3.0):
        more = dense(factored(0.2, pi)(operator)) - dense(exact(0.2)(operator))
        assert np.linalg.eigvalsh((more + more.T) / 2).min() > -1e-10


def test_factored_damping_scales_with_the_factors() -> None:
    # ×s on one factor and ÷s on the other is the same block, and π makes its damping the same too.
    g, a = psd(3), psd(4)
    one = matrix(factored(0.2)(Kronecker((Dense(g), Dense(a)))))
    other = matrix(factored(0.2)(Kronecker((Dense(1000 * g), Dense(a / 1000)))))
    assert torch.allclose(one, other)


def test_pi_is_of_each_group() -> None:
    g, a = psd(2, 3), psd(2, 4)
    a[1] *= 100
    found = factored(0.2)(GroupedKronecker((Grouped(g), Grouped(a))))
    for i in range(2):
        alone = factored(0.2)(Kronecker((Dense(g[i]), Dense(a[i]))))
        assert torch.allclose(found.factors[0].stack[i], alone.factors[0].matrix)
        assert torch.allclose(found.factors[1].stack[i], alone.factors[1].matrix)


def test_three_factors_share_in_proportion_to_their_means() -> None:
    u, v, w = (torch.eye(d).double() * m for d, m in ((2, 1.0), (3, 8.0), (4, 64.0)))
    found = factored(0.001)(Kronecker((Dense(u), Dense(v), Dense(w))))
    ratios = [(factor.matrix[0, 0] / mean).item() - 1 for factor, mean in zip(found.factors, (1, 8, 64), strict=True)]
    assert ratios == pytest.approx([0.1 / 8] * 3)  # λ^(1/3) = 0.1 and m̄ = 8
    added = [0.1 / 8 * 1, 0.1 / 8 * 8, 0.1 / 8 * 64]
    assert math.prod(added) == pytest.approx(0.001)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan")])
def test_pi_is_one_where_a_trace_is_no_positive_number(scale: float) -> None:
    good, bad = torch.eye(3).double(), torch.eye(3).double() * scale
    found = factored(0.04)(
        GroupedKronecker((Grouped(torch.stack([good, 9 * good])), Grouped(torch.stack([bad, good]))))
    )
    assert torch.allclose(found.factors[0].stack[0], 1.2 * good)
    assert torch.allclose(found.factors[0].stack[1], (9 + 0.2 * 3) * good)
    if scale == 0:
        assert torch.allclose(found.factors[1].stack[0], 0.2 * good)


def test_traces_whose_product_underflows() -> None:
    tiny = 1e-30 * torch.eye(3)
    found = factored(1e-4)(Kronecker((Dense(tiny), Dense(tiny))))
    assert torch.allclose(found.factors[0].matrix, 0.01 * torch.eye(3))


@pytest.mark.parametrize("name", CASES)
def test_per_factor(name: str) -> None:
    operator = CASES[name]()
    found = per_factor(0.1)(operator)
    if isinstance(operator, Kronecker):
        for before, after in zip(operator.factors, found.factors, strict=True):
            np.testing.assert_allclose(matrix(after), matrix(before) + 0.1 * torch.eye(before.size))
    elif isinstance(operator, GroupedKronecker):
        for before, after in zip(operator.factors, found.factors, strict=True):
            assert torch.allclose(after.stack, before.stack + 0.1 * torch.eye(before.stack.shape[1]))
    else:
        np.testing.assert_allclose(dense(found), dense(exact(0.1)(operator)))


@pytest.mark.parametrize("damping", [exact, factored, per_factor])
@pytest.mark.parametrize("lam", [-0.1, float("nan"), float("inf")])
def test_senseless_damping_is_refused(damping: object, lam: float) -> None:
    with pytest.raises(ValueError, match="zero or a positive"):
        damping(lam)


def test_senseless_pi_is_refused() -> None:
    with pytest.raises(ValueError, match="positive number"):
        factored(0.1, 0.0)
    with pytest.raises(ValueError, match="two factors, not 3"):
        factored(0.1, 2.0)(CASES["convolution"]())
    assert len(factored(0.1, 1.0)(CASES["convolution"]()).factors) == 3


def test_unknown_types_are_named() -> None:
    class Unknown(Operator):
        size = 1

    for damping in (exact(0.1), factored(0.1), per_factor(0.1)):
        with pytest.raises(TypeError, match="Unknown"):
            damping(Unknown())


@pytest.mark.parametrize("name", sorted(CASES.keys() - {"matrix block", "embedding block", "convolution"}))
def test_nothing_is_read_from_the_device(name: str) -> None:
    operator = CASES[name]()
    product_like = isinstance(operator, GroupedKronecker)
    lam = torch.tensor(0.1).double()
    with Reads() as reads:
        for damping in [factored(lam), per_factor(lam)] + ([] if product_like else [exact(lam)]):
            damping(operator)
    assert reads.count == 0
