"""Eigenvalues and eigenvectors that come out, or say that they did not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from linalg.spectra import conditioned

from curvlab.linalg.eigh import safe_eigh

REAL = torch.linalg.eigh


def failing(times: int):
    calls = {"left": times, "dtypes": []}

    def eigh(matrix: torch.Tensor):
        calls["dtypes"].append(matrix.dtype)
        if calls["left"]:
            calls["left"] -= 1
            raise torch.linalg.LinAlgError("did not converge")
        return REAL(matrix)

    eigh.calls = calls
    return eigh


@given(d=st.integers(1, 30), b=st.integers(0, 3), log_condition=st.floats(0, 12))
@settings(max_examples=30, deadline=None)
def test_the_decomposition_of_numpy(d: int, b: int, log_condition: float) -> None:
    stack = torch.stack([conditioned(d, 10**log_condition, seed) for seed in range(b)] or [torch.zeros(d, d).double()])
    stack = stack[:b]
    values, vectors, ok = safe_eigh(stack)
    assert ok.all()
    np.testing.assert_allclose(values, np.linalg.eigvalsh(stack.numpy()), atol=1e-14)
    assert torch.allclose((vectors * values[:, None]) @ vectors.mT, stack, atol=1e-13)
    assert torch.allclose(vectors.mT @ vectors, torch.eye(d).double().expand(b, d, d), atol=1e-13)


@pytest.mark.parametrize("failures", range(1, 6))
def test_one_by_one_in_float64_and_shifted(monkeypatch: pytest.MonkeyPatch, failures: int) -> None:
    stack = torch.stack([conditioned(5, 10.0, seed) for seed in range(2)]).float()
    expected = safe_eigh(stack)
    eigh = failing(failures)
    monkeypatch.setattr(torch.linalg, "eigh", eigh)
    found = safe_eigh(stack)
    assert found.ok.all()
    assert torch.allclose(found.values, expected.values, atol=1e-6)
    rebuilt = (found.vectors * found.values[:, None]) @ found.vectors.mT
    assert torch.allclose(rebuilt, stack, atol=1e-6)
    assert (torch.float64 in eigh.calls["dtypes"]) == (failures > 1)


def test_what_never_converges_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.linalg, "eigh", failing(100))
    values, vectors, ok = safe_eigh(conditioned(3, 2.0)[None])
    assert not ok.any()
    assert values.eq(0).all()
    assert torch.equal(vectors[0], torch.eye(3, dtype=torch.float64))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_matrix_that_is_not_finite_is_set_aside(bad: float) -> None:
    stack = torch.stack([conditioned(4, 10.0, seed) for seed in range(3)])
    clean = safe_eigh(stack)
    stack[2, 3, 1] = bad
    values, vectors, ok = safe_eigh(stack)
    assert ok.tolist() == [True, True, False]
    assert torch.equal(values[:2], clean.values[:2])
    assert torch.equal(vectors[:2], clean.vectors[:2])
    assert values[2].eq(0).all()
    assert vectors.isfinite().all()
