"""Conjugate gradients against dense solutions, and every reason to stop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from linalg.spectra import Reads, conditioned, with_eigenvalues

from curvlab.linalg.conjugate_gradients import conjugate_gradients


def times(matrix: torch.Tensor):
    return lambda v: v @ matrix


@given(d=st.integers(1, 25), log_condition=st.floats(0, 4), seed=st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_the_dense_solution(d: int, log_condition: float, seed: int) -> None:
    a, b = (
        conditioned(d, 10**log_condition, seed),
        torch.randn(d, generator=torch.Generator().manual_seed(seed)).double(),
    )
    found = conjugate_gradients(times(a), b, max_iterations=20 * d, tolerance=1e-11)
    assert found.reason == "converged"
    np.testing.assert_allclose(found.solution, np.linalg.solve(a.numpy(), b.numpy()), rtol=1e-5, atol=1e-6)
    true = (b - a @ found.solution).norm()
    assert found.residuals[-1].item() <= 1e-11 * b.norm()
    assert true <= 1e-10 * b.norm()
    assert found.residuals.shape == (found.iterations + 1,)
    assert found.residuals[0].item() == pytest.approx(b.norm().item())


def test_as_many_iterations_as_distinct_eigenvalues() -> None:
    a = with_eigenvalues(torch.tensor([1.0, 1, 1, 4, 4, 9, 9, 9, 9, 9]))
    found = conjugate_gradients(times(a), torch.randn(10).double(), tolerance=1e-10)
    assert (found.reason, found.iterations) == ("converged", 3)


def test_residuals_are_those_of_each_iterate() -> None:
    a, b = conditioned(8, 100.0), torch.randn(8).double()
    whole = conjugate_gradients(times(a), b, max_iterations=5)
    for k in range(6):
        part = conjugate_gradients(times(a), b, max_iterations=k)
        assert part.reason == "iterations"
        assert part.iterations == k
        assert whole.residuals[k].item() == pytest.approx((b - a @ part.solution).norm().item(), rel=1e-9)


def test_the_exact_preconditioner_needs_one_iteration_and_any_gives_the_same_solution() -> None:
    a, b = conditioned(12, 1e6), torch.randn(12).double()
    expected = torch.linalg.solve(a, b)
    exact = conjugate_gradients(times(a), b, times(torch.linalg.inv(a)), tolerance=1e-8)
    assert (exact.reason, exact.iterations) == ("converged", 1)
    scale = torch.logspace(0, 3, 12).double()
    scaled = scale[:, None] * conditioned(12, 10.0) * scale
    plain = conjugate_gradients(times(scaled), b, tolerance=1e-9, max_iterations=200)
    jacobi = conjugate_gradients(times(scaled), b, lambda r: r / scaled.diagonal(), tolerance=1e-9, max_iterations=200)
    assert jacobi.iterations < plain.iterations
    assert torch.allclose(jacobi.solution, torch.linalg.solve(scaled, b), rtol=1e-6, atol=1e-9)
    assert torch.allclose(exact.solution, expected, rtol=1e-6)


def test_a_warm_start_continues() -> None:
    a, b = conditioned(10, 1e3), torch.randn(10).double()
    solution = torch.linalg.solve(a, b)
    assert conjugate_gradients(times(a), b, start=solution, tolerance=1e-8).iterations == 0
    near = conjugate_gradients(times(a), b, start=solution + 1e-6 * torch.randn(10).double(), tolerance=1e-8)
    far = conjugate_gradients(times(a), b, tolerance=1e-8, max_iterations=50)
    assert near.residuals[0] < 1e-4 * far.residuals[0]
    assert near.iterations < far.iterations
    start = torch.randn(10).double()
    kept = start.clone()
    conjugate_gradients(times(a), b, start=start)
    assert torch.equal(start, kept)


def test_every_system_of_a_batch_is_its_own() -> None:
    matrices = torch.stack([conditioned(6, 10.0**k, k) for k in range(4)])
    b = torch.randn(4, 6).double()
    b[2] = 0
    together = conjugate_gradients(
        lambda v: torch.einsum("bij,bj->bi", matrices, v), b, max_iterations=30, tolerance=1e-9
    )
    assert together.residuals.shape == (together.iterations + 1, 4)
    for k in range(4):
        alone = conjugate_gradients(times(matrices[k]), b[k], max_iterations=30, tolerance=1e-9)
        assert torch.allclose(together.solution[k], alone.solution, rtol=1e-9, atol=1e-12)
        assert together.reasons[k] == alone.reason == "converged"
    assert together.solution[2].eq(0).all()


def test_negative_curvature_stops_with_the_iterate_before() -> None:
    a = with_eigenvalues(torch.tensor([-1.0, 1.0, 2.0, 3.0]))
    b = torch.randn(4).double()
    found = conjugate_gradients(times(a), b, tolerance=1e-10, max_iterations=50)
    assert found.reason == "negative curvature"
    before = conjugate_gradients(times(a), b, max_iterations=found.iterations - 1)
    assert torch.equal(found.solution, before.solution)
    first = conjugate_gradients(times(-torch.eye(3).double()), torch.ones(3).double())
    assert first.reason == "negative curvature"
    assert first.solution.eq(0).all()


def test_other_reasons_to_stop() -> None:
    eye, b = torch.eye(3).double(), torch.tensor([1.0, 2.0, 3.0]).double()
    assert conjugate_gradients(times(eye), b, lambda r: -r).reason == "indefinite preconditioner"
    nan = conjugate_gradients(lambda v: v * float("nan"), b)
    assert nan.reason == "not finite"
    assert nan.solution.eq(0).all()
    assert nan.residuals.isfinite().all()
    bad = conjugate_gradients(times(eye), b * float("nan"))
    assert bad.reason == "not finite"
    assert bad.residuals[0].item() == float("inf")
    zero = conjugate_gradients(times(eye), torch.zeros(3).double())
    assert zero.reason == "converged"
    assert zero.solution.eq(0).all()


def test_a_product_that_breaks_down_later_keeps_the_last_finite_iterate() -> None:
    a, b = conditioned(6, 100.0), torch.randn(6).double()
    calls = []

    def product(v: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return v @ a if len(calls) < 3 else v * float("inf")

    found = conjugate_gradients(product, b, tolerance=1e-12)
    assert found.reason == "not finite"
    assert torch.equal(found.solution, conjugate_gradients(times(a), b, max_iterations=2).solution)


def test_a_batch_reports_its_gravest_reason() -> None:
    matrices = torch.stack([torch.eye(3).double(), -torch.eye(3).double()])
    found = conjugate_gradients(lambda v: torch.einsum("bij,bj->bi", matrices, v), torch.ones(2, 3).double())
    assert found.reasons == ["converged", "negative curvature"]
    assert found.reason == "negative curvature"


def test_many_iterations_too_many_do_no_harm() -> None:
    a, b = conditioned(5, 10.0).float(), torch.randn(5)
    found = conjugate_gradients(times(a), b, max_iterations=200)
    assert found.reason == "converged"
    assert torch.allclose(found.solution, torch.linalg.solve(a, b), rtol=1e-4, atol=1e-5)


def test_without_a_tolerance_nothing_is_read_from_the_device() -> None:
    a, b = conditioned(6, 10.0), torch.randn(6).double()
    with Reads() as reads:
        conjugate_gradients(times(a), b, times(torch.eye(6).double()), start=b, max_iterations=4)
    assert reads.count == 0
    with Reads() as reads:
        found = conjugate_gradients(times(a), b, max_iterations=4, tolerance=1e-14)
    assert reads.count == found.iterations
