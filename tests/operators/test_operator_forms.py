"""Every form of operator against the same matrix written out by numpy."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
import torch

from curvlab.errors import MemoryBudgetError
from curvlab.linalg.float64 import double, double_gram
from curvlab.operators.diagonal import diagonal
from curvlab.operators.eigenvalues import eigenvalues
from curvlab.operators.matrix import matrix
from curvlab.operators.operator import Dense, Diagonal, Grouped, GroupedKronecker, Kronecker, LowRank, Operator
from curvlab.operators.spectrum import spectrum
from curvlab.operators.trace import trace


def psd(*shape: int) -> torch.Tensor:
    x = torch.randn(*shape, shape[-1] + 2, dtype=torch.float64)
    return x @ x.mT


def block_diagonal(blocks: list[np.ndarray]) -> np.ndarray:
    out = np.zeros((sum(len(b) for b in blocks),) * 2)
    start = 0
    for block in blocks:
        out[start : start + len(block), start : start + len(block)] = block
        start += len(block)
    return out


def cases() -> dict[str, tuple[Operator, np.ndarray]]:
    torch.manual_seed(1)
    a, b, c = psd(4), psd(3), psd(2)
    values, rows, stack, other = torch.rand(5).double(), torch.randn(3, 6).double(), psd(3, 4), psd(3, 2)
    kron = [np.kron(x, y) for x, y in zip(stack.numpy(), other.numpy(), strict=True)]
    grouped = block_diagonal(list(stack.numpy()))
    return {
        "dense": (Dense(a), a.numpy()),
        "diagonal": (Diagonal(values), np.diag(values.numpy())),
        "low rank": (LowRank(rows, 0.5), 0.5 * rows.numpy().T @ rows.numpy()),
        "more rows than columns": (LowRank(rows.T, 0.5), 0.5 * rows.numpy() @ rows.numpy().T),
        "grouped": (Grouped(stack), grouped),
        "kronecker": (Kronecker((Dense(a), Diagonal(values))), np.kron(a.numpy(), np.diag(values.numpy()))),
        "three modes": (Kronecker((Dense(a), Dense(b), Dense(c))), reduce(np.kron, [a.numpy(), b.numpy(), c.numpy()])),
        "nested": (Kronecker((Grouped(stack), Kronecker((Dense(b),)))), np.kron(grouped, b.numpy())),
        "grouped kronecker": (GroupedKronecker((Grouped(stack), Grouped(other))), block_diagonal(kron)),
        "kronecker of groups": (
            Kronecker((GroupedKronecker((Grouped(stack), Grouped(other))), Dense(c))),
            np.kron(block_diagonal(kron), c.numpy()),
        ),
    }


@pytest.mark.parametrize("name", cases())
def test_every_function_agrees_with_the_dense_matrix(name: str) -> None:
    operator, dense = cases()[name]
    assert operator.size == len(dense)
    np.testing.assert_allclose(matrix(operator).numpy(), dense, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(diagonal(operator).numpy(), np.diag(dense), rtol=1e-12)
    np.testing.assert_allclose(trace(operator), np.trace(dense), rtol=1e-12)
    expected = np.linalg.eigvalsh(dense)
    np.testing.assert_allclose(eigenvalues(operator).numpy(), expected, rtol=1e-10, atol=1e-12 * expected[-1])


@pytest.mark.parametrize("name", cases())
def test_spectrum_agrees_with_the_dense_matrix(name: str) -> None:
    operator, dense = cases()[name]
    values, found = np.linalg.eigvalsh(dense), spectrum(operator)
    kept = values[values > len(values) * np.finfo(float).eps * values[-1]]
    shares = kept / kept.sum()
    assert found.size == len(values)
    assert found.rank == len(kept)
    assert found.trace == pytest.approx(values.sum(), rel=1e-12)
    assert found.max == pytest.approx(values[-1], rel=1e-12)
    assert found.effective_rank == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-10)
    assert found.condition_number_nonzero == pytest.approx(kept[-1] / kept[0], rel=1e-8)
    full = len(kept) == len(values)
    assert found.condition_number == (found.condition_number_nonzero if full else None)
    assert found.min == pytest.approx(values[0] if full else 0.0, rel=1e-8, abs=0)
    values[values < kept[0]] = 0
    expected = np.quantile(values, (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1))
    np.testing.assert_allclose(found.quantiles, expected, rtol=1e-8)


def test_low_rank_has_exact_zeros_and_the_dense_spectrum() -> None:
    rows = torch.randn(7, 20)
    values = eigenvalues(LowRank(rows, 1 / 7))
    assert values[:13].eq(0).all()
    dense = eigenvalues(Dense(rows.double().T @ rows.double() / 7))
    assert torch.allclose(values, dense, rtol=1e-10, atol=1e-13)


def test_gram_in_pieces_is_the_gram_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curvlab.linalg.float64.CHUNK", 50)
    for x in (torch.randn(1, 33, 7), torch.randn(20, 3, 2), torch.randn(2, 5, 60), torch.randn(4, 6, 0)):
        expected = x.double().mT @ x.double()
        assert torch.allclose(double_gram(x), expected, rtol=1e-13, atol=1e-13)
        scale = 2.0 ** torch.arange(len(x), dtype=torch.float64)
        scaled = double_gram(x, scale) / scale.square()[:, None, None]
        assert torch.allclose(scaled, expected, rtol=1e-13, atol=1e-13)


def test_a_scaled_gram_matrix_leaves_float64_rows_alone() -> None:
    x = torch.randn(1, 5, 3, dtype=torch.float64)
    before = x.clone()
    double_gram(x, torch.tensor([3.0], dtype=torch.float64))
    assert torch.equal(x, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.int8])
def test_double_is_exact_for_short_types(dtype: torch.dtype) -> None:
    x = torch.tensor([0.0, 1.0, -2.0, 3.0]).to(dtype)
    assert double(x).tolist() == [0.0, 1.0, -2.0, 3.0]
    assert double(x).dtype == torch.float64


def test_a_stranger_adds_a_type() -> None:
    class Scaled(Operator):
        size = 3

    with pytest.raises(TypeError, match="Scaled"):
        eigenvalues(Scaled())
    eigenvalues.register(Scaled, lambda _: torch.full((3,), 2.0, dtype=torch.float64))
    trace.register(Scaled, lambda _: 6.0)
    found = spectrum(Kronecker((Scaled(), Diagonal(torch.tensor([1.0, 4.0])))))
    assert (found.size, found.trace, found.max, found.min, found.rank) == (6, 30.0, 8.0, 2.0, 6)


@pytest.mark.parametrize("function", [trace, diagonal, matrix, eigenvalues])
def test_unknown_types_are_named(function: object) -> None:
    class Unknown(Operator):
        size = 1

    with pytest.raises(TypeError, match="Unknown"):
        function(Unknown())


def test_what_is_too_large_to_write_down_is_refused() -> None:
    wide = Diagonal(torch.ones(30_522))
    with pytest.raises(MemoryBudgetError, match="30,522"):
        matrix(wide)
    with pytest.raises(MemoryBudgetError, match="eigenvalues"):
        eigenvalues(Kronecker((wide, wide)))
    assert spectrum(Kronecker((wide, wide))).rank == 30_522**2


def test_products_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Kronecker(())
    with pytest.raises(ValueError, match="groups"):
        GroupedKronecker((Grouped(psd(2, 3)), Grouped(psd(3, 3))))
