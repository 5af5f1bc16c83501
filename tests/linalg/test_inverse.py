"""Inverses against numpy in float64, and every way in which there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from linalg.spectra import Reads, conditioned, with_eigenvalues

from curvlab.linalg.inverse import cholesky_inverse, safe_inverse

EPS = {torch.float32: 1.2e-7, torch.float64: 2.3e-16}


@given(
    d=st.integers(1, 40),
    b=st.integers(1, 3),
    log_condition=st.floats(0, 5),
    log_scale=st.floats(-8, 8),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
@settings(max_examples=60, deadline=None)
def test_the_inverse_of_numpy(d: int, b: int, log_condition: float, log_scale: float, dtype: torch.dtype) -> None:
    stack = torch.stack([conditioned(d, 10**log_condition, seed, 10**log_scale) for seed in range(b)]).to(dtype)
    value, ok = safe_inverse(stack)
    assert ok.all()
    assert value.dtype == dtype
    assert torch.equal(value, value.mT)
    expected = np.linalg.inv(stack.double().numpy())
    error = np.linalg.norm(value.double().numpy() - expected, axis=(1, 2)) / np.linalg.norm(expected, axis=(1, 2))
    assert error.max() <= 10 * EPS[dtype] * 10**log_condition  # backward stability bounds it by a multiple of eps·κ


@pytest.mark.parametrize("numbers", [(4181, 2584, 1597), (75025, 46368, 28657), (196418, 121393, 75025)])
def test_what_float32_cannot_resolve_is_solved_in_float64(numbers: tuple[int, int, int]) -> None:
    # Fibonacci numbers: [[a, b], [b, c]] has determinant 1, so its inverse is [[c, −b], [−b, a]], all exact in float32.
    # Its condition number is a²: Cholesky in float32 succeeds on the first two, with inverses wrong many times over.
    a, b, c = (float(number) for number in numbers)
    stack = torch.tensor([[[a, b], [b, c]], [[1.0, 0.0], [0.0, 1.0]]])
    assert cholesky_inverse(stack).ok.tolist() == [False, True]
    value, ok = safe_inverse(stack)
    assert ok.all()
    assert torch.allclose(value[0], torch.tensor([[c, -b], [-b, a]]), rtol=1e-5)
    assert torch.equal(value[1], torch.eye(2))


def test_rounding_below_zero_is_shifted_away() -> None:
    values = torch.tensor([-1e-7, 0.0, 0.5, 1.0, 2.0], dtype=torch.float64)
    matrix = with_eigenvalues(values)
    value, ok = safe_inverse(matrix[None])
    assert ok.all()
    spectrum = np.linalg.eigvalsh(value[0].double().numpy())
    np.testing.assert_allclose(spectrum[:3], [1 / 2, 1, 2], rtol=1e-4)
    assert 1e5 < spectrum[3] < spectrum[4] < 1e7  # 1/(1e-6 ‖A‖): the second shift


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", [(0, 0), (2, 1), (3, 3), (3, 0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_that_are_not_finite_spoil_only_their_own_matrix(bad: float, where: tuple, dtype: torch.dtype) -> None:
    stack = torch.stack([conditioned(4, 10.0, seed) for seed in range(3)]).to(dtype)
    clean = safe_inverse(stack).value
    stack[1][where] = bad
    stack[1][where[::-1]] = bad
    value, ok = safe_inverse(stack)
    assert ok.tolist() == [True, False, True]
    assert value[1].eq(0).all()
    assert torch.equal(value[[0, 2]], clean[[0, 2]])


@pytest.mark.parametrize("values", [[-1.0, 1.0, 2.0], [-0.01, 1.0, 1.0], [0.0, 0.0, 0.0], [-1.0, -1.0, -1.0]])
def test_indefinite_and_zero_matrices_have_no_inverse(values: list[float]) -> None:
    value, ok = safe_inverse(with_eigenvalues(torch.tensor(values))[None].float())
    assert not ok.any()
    assert value.eq(0).all()


def test_an_inverse_beyond_the_dtype_is_no_inverse() -> None:
    value, ok = safe_inverse(torch.tensor([[[1e-40]], [[4.0]]]))
    assert ok.tolist() == [False, True]
    assert value.flatten().tolist() == [0.0, 0.25]


def test_only_the_lower_triangle_is_read_and_the_input_is_left_alone() -> None:
    stack = conditioned(5, 10.0)[None]
    before = stack.clone()
    expected = safe_inverse(stack).value
    assert torch.equal(stack, before)
    assert torch.equal(safe_inverse(stack.tril()).value, expected)


def test_success_is_one_reading_of_the_device() -> None:
    stack = conditioned(6, 10.0)[None].repeat(5, 1, 1)
    with Reads() as reads:
        safe_inverse(stack)
    assert reads.count == 1
    with Reads() as reads:
        cholesky_inverse(stack)
    assert reads.count == 0


def test_no_matrices() -> None:
    value, ok = safe_inverse(torch.zeros(0, 3, 3))
    assert value.shape == (0, 3, 3)
    assert ok.shape == (0,)
