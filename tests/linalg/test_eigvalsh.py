"""Eigenvalues that come out, or an error that says why not."""

from __future__ import annotations

import pytest
import torch

from curvlab.errors import NumericalError
from curvlab.linalg.eigvalsh import safe_eigvalsh

REAL = torch.linalg.eigvalsh


def failing(times: int):
    calls = {"left": times}

    def eigvalsh(matrix: torch.Tensor) -> torch.Tensor:
        if calls["left"]:
            calls["left"] -= 1
            raise torch.linalg.LinAlgError("did not converge")
        return REAL(matrix)

    return eigvalsh


def matrix() -> torch.Tensor:
    x = torch.randn(3, 6, 8)
    return x @ x.mT


def test_float64_and_ascending_for_every_dtype() -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        x = matrix().to(dtype)
        values = safe_eigvalsh(x)
        assert values.dtype == torch.float64
        assert torch.equal(values, REAL(x.double()))


@pytest.mark.parametrize("failures", [1, 2, 3])
def test_a_shift_helps_convergence_and_is_taken_back(monkeypatch: pytest.MonkeyPatch, failures: int) -> None:
    x = matrix()
    monkeypatch.setattr(torch.linalg, "eigvalsh", failing(failures))
    assert torch.allclose(safe_eigvalsh(x), REAL(x.double()), rtol=0, atol=1e-13 * x.max().item() * 10)


def test_giving_up_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.linalg, "eigvalsh", failing(100))
    with pytest.raises(NumericalError, match=r"6 × 6 matrix .* did not converge"):
        safe_eigvalsh(matrix())


def test_non_finite_entries_are_counted() -> None:
    x = matrix()
    x[1, 2, 3] = float("nan")
    x[0, 0, 0] = float("inf")
    with pytest.raises(NumericalError, match="2 numbers that are not finite"):
        safe_eigvalsh(x)


def test_empty() -> None:
    assert safe_eigvalsh(torch.zeros(0, 3, 3)).shape == (0, 3)
    assert safe_eigvalsh(torch.zeros(2, 0, 0)).shape == (2, 0)
