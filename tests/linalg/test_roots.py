"""Inverse roots: coupled Newton, eigenvalues and numpy must agree (docs/curvature.md)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from linalg.spectra import Reads, conditioned, with_eigenvalues

import curvlab.linalg.roots as home
from curvlab.linalg.roots import coupled_newton, eigh_root, inverse_root

EPS = {torch.float32: 1.2e-7, torch.float64: 2.3e-16}


def oracle(matrix: torch.Tensor, p: int) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix.double().numpy())
    return (vectors * values ** (-1 / p)) @ vectors.T


def relative(found: torch.Tensor, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found.double().numpy() - expected) / np.linalg.norm(expected))


@given(
    d=st.integers(1, 30),
    p=st.integers(1, 8),
    log_condition=st.floats(0, 4),
    log_scale=st.floats(-6, 6),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
@settings(max_examples=80, deadline=None)
def test_both_methods_and_numpy_agree(
    d: int, p: int, log_condition: float, log_scale: float, dtype: torch.dtype
) -> None:
    matrix = conditioned(d, 10**log_condition, d, 10**log_scale).to(dtype)
    expected = oracle(matrix, p)
    newton, (eigh, ok) = coupled_newton(matrix[None], p), eigh_root(matrix[None], p)
    # As for an inverse, a multiple of eps·κ. The backward errors of `eigh` and of the products grow with d in the worst
    # case; by how much depends on the order in which a processor's library adds up.
    rounding = (10 + d) * EPS[dtype] * 10**log_condition
    assert relative(newton.root[0], expected) <= rounding + 1e-6 * d**0.5  # the tolerance is of ‖M − I‖_F/√d
    assert relative(eigh[0], expected) <= rounding
    assert ok.all()
    assert newton.residual.item() <= 100 * rounding + 1e-5
    assert torch.equal(newton.root, newton.root.mT)
    assert torch.equal(eigh, eigh.mT)
    assert newton.iterations < 40


def test_the_residual_is_the_true_one() -> None:
    matrix = conditioned(20, 1e5).float()
    found = coupled_newton(matrix[None], 4)
    x = found.root[0].double().numpy()
    true = np.linalg.norm(np.linalg.matrix_power(x, 4) @ matrix.double().numpy() - np.eye(20)) / 20**0.5
    assert 1e-4 < true < found.residual.item() < 4 * true  # it holds the rounding of X⁴A in float32 as well


def test_every_matrix_of_a_batch_stops_by_itself() -> None:
    stack = torch.stack([conditioned(12, 10.0**k, k) for k in range(5)])
    together = coupled_newton(stack, 4)
    alone = [coupled_newton(one[None], 4) for one in stack]
    assert together.iterations == max(one.iterations for one in alone)
    assert torch.allclose(together.root, torch.cat([one.root for one in alone]), rtol=1e-9, atol=1e-12)


def test_the_iteration_ends_where_float32_ends() -> None:
    # The tolerance of 1e-6 is under what float32 can reach for 200 rows; 100 iterations must not be spent on it.
    found = coupled_newton(conditioned(200, 1e4).float()[None], 2, tolerance=1e-9)
    assert found.iterations < 25
    assert found.residual.item() < 1e-2


def test_growing_errors_end_the_iteration_and_the_previous_iterate_is_kept() -> None:
    # A negative eigenvalue runs away from 1 in every step: never worse than the start, never 100 iterations.
    matrix = with_eigenvalues(torch.tensor([-0.5, 0.3, 1.0]))[None]
    found = coupled_newton(matrix, 4)
    assert found.iterations < 10
    assert found.root.isfinite().all()
    assert found.residual.item() > 0.5


def test_the_number_of_iterations_is_bounded_and_the_residual_tells() -> None:
    found = coupled_newton(conditioned(8, 1e6)[None], 4, max_iterations=3)
    assert found.iterations == 3
    assert found.residual.item() > 0.1


@pytest.mark.parametrize("method", ["newton", "eigh", "auto"])
def test_what_has_no_root_is_said_and_spoils_no_other(method: str) -> None:
    good = [conditioned(4, 10.0, seed) for seed in range(2)]
    nan, inf = good[0].clone(), good[1].clone()
    nan[1, 2] = nan[2, 1] = float("nan")
    inf[3, 3] = float("inf")
    indefinite = with_eigenvalues(torch.tensor([-1.0, 0.1, 1.0, 2.0]))
    zero = torch.zeros(4, 4).double()
    stack = torch.stack([good[0], nan, inf, indefinite, zero, -good[0], good[1]])
    value, ok = inverse_root(stack, 4, method)
    assert ok.tolist() == [True, False, False, False, False, False, True]
    assert value[1:-1].eq(0).all()
    for i, matrix in ((0, good[0]), (-1, good[1])):
        assert relative(value[i], oracle(matrix, 4)) < 1e-6


@pytest.mark.parametrize("method", ["newton", "eigh"])
def test_ill_conditioned_float32_is_solved_in_float64(method: str) -> None:
    # Whole numbers, so that float32 holds the matrix exactly: eigenvalues 2^-16 … 2^8 of a block-diagonal matrix.
    scale = torch.tensor([2.0**-16, 1.0, 256.0])
    matrix = torch.block_diag(*[s * torch.tensor([[2.0, 1.0], [1.0, 2.0]]) for s in scale])
    value, ok = inverse_root(matrix[None], 4, method)
    assert ok.all()
    assert relative(value[0], oracle(matrix, 4)) < 1e-5


def test_rounding_below_zero_is_shifted_away() -> None:
    matrix = with_eigenvalues(torch.tensor([-1e-7, 0.5, 1.0, 2.0]).double())
    value, ok = eigh_root(matrix[None].float(), 4)
    assert ok.all()
    spectrum = np.linalg.eigvalsh(value[0].double().numpy())
    np.testing.assert_allclose(spectrum[:3], np.array([2.0, 1.0, 0.5]) ** -0.25, rtol=1e-5)
    assert spectrum[3] == pytest.approx((2e-6) ** -0.25, rel=0.05)  # the shift of 1e-6·λ_max


def test_newton_with_a_bad_residual_is_replaced_by_eigenvalues(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = torch.stack([conditioned(6, 100.0), conditioned(6, 10.0)])
    monkeypatch.setattr(home, "RESIDUAL", -1.0)
    value, ok = inverse_root(stack, 4, "newton")
    assert ok.all()
    for i in range(2):
        assert relative(value[i], oracle(stack[i], 4)) < 1e-13  # eigh's accuracy, not the tolerance of Newton


@pytest.mark.parametrize(("devices", "expected"), [(("cpu",), "eigh"), ((), "newton")])
def test_auto_takes_the_method_of_the_device(
    monkeypatch: pytest.MonkeyPatch, devices: tuple[str, ...], expected: str
) -> None:
    stack = conditioned(6, 100.0)[None]
    by_name = {method: inverse_root(stack, 4, method).value for method in ("eigh", "newton")}
    assert not torch.equal(by_name["eigh"], by_name["newton"])
    monkeypatch.setattr(home, "EIGH_DEVICES", devices)
    assert torch.equal(inverse_root(stack, 4).value, by_name[expected])


def test_readings_of_the_device() -> None:
    stack = conditioned(6, 100.0)[None].repeat(5, 1, 1)
    with Reads() as reads:
        eigh_root(stack, 4)
    assert reads.count == 1
    with Reads() as reads:
        found = coupled_newton(stack, 4)
    assert reads.count == found.iterations + 1
