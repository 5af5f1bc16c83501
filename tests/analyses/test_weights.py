"""Weight statistics against numpy's singular values."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curvlab.analyses import singular_values as module
from curvlab.analyses.power_law import power_law
from curvlab.analyses.weight_statistics import WeightsResult, weight_statistics

SCALARS = ("spectral_norm", "frobenius_norm", "stable_rank", "effective_rank", "condition_number")


def from_singular_values(s: np.ndarray) -> dict[str, float]:
    shares = s[s > 0] ** 2 / (s**2).sum()
    return {
        "spectral_norm": s.max(),
        "frobenius_norm": np.linalg.norm(s),
        "stable_rank": (s**2).sum() / s.max() ** 2,
        "effective_rank": np.exp(-(shares * np.log(shares)).sum()),
        "condition_number": s.max() / s.min(),
    }


def assert_agrees(found: WeightsResult, s: np.ndarray, rel: float = 1e-9) -> None:
    for name, number in from_singular_values(s).items():
        assert getattr(found, name) == pytest.approx(number, rel=rel), name
    assert found.rank == len(s)


def with_spectrum(rows: int, columns: int, values: list[float] | np.ndarray) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    left, right = (torch.randn(n, len(values), dtype=torch.float64, generator=generator) for n in (rows, columns))
    return torch.linalg.qr(left).Q * torch.as_tensor(np.asarray(values)) @ torch.linalg.qr(right).Q.T


@pytest.mark.parametrize("shape", [(20, 35), (35, 20), (8, 4, 3, 3), (5, 6, 7), (1, 9), (9, 1), (1, 1), (7,), ()])
def test_numbers_are_those_of_numpys_svd(shape: tuple[int, ...]) -> None:
    w = torch.randn(shape)
    dense = w.double().numpy().reshape(shape[0] if shape else 1, -1)
    found = weight_statistics(w)
    assert_agrees(found, np.linalg.svd(dense, compute_uv=False))
    assert (found.nonfinite, found.zeros, found.note) == (0, 0, None)


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.int64],
)
def test_every_dtype_is_analysed_as_stored(dtype: torch.dtype) -> None:
    w = (5 * torch.randn(30, 12)).to(dtype)
    assert_agrees(weight_statistics(w), np.linalg.svd(w.float().double().numpy(), compute_uv=False))


def test_parameters_and_strided_views_are_weights_too() -> None:
    w = torch.nn.Parameter(torch.randn(30, 24))
    assert_agrees(weight_statistics(w), np.linalg.svd(w.detach().double().numpy(), compute_uv=False))
    assert_agrees(weight_statistics(w[::2, 1::3]), np.linalg.svd(w.detach()[::2, 1::3].double(), compute_uv=False))
    assert weight_statistics(w, memory=0).spectral_norm == pytest.approx(weight_statistics(w).spectral_norm, rel=1e-6)


def test_embeddings_are_their_transposes() -> None:
    w = torch.randn(500, 24)
    table, matrix = weight_statistics(w), weight_statistics(w.T)
    for name in SCALARS:
        assert getattr(table, name) == pytest.approx(getattr(matrix, name), rel=1e-9)


def test_groups_are_diagonal_blocks() -> None:
    w = torch.randn(12, 5, 3, 3)
    dense = torch.block_diag(*w.double().reshape(3, 4, 45)).numpy()
    assert_agrees(weight_statistics(w, groups=3), np.linalg.svd(dense, compute_uv=False)[:12])


def test_a_transposed_convolution_is_out_by_the_rest() -> None:
    w = torch.randn(6, 4, 3, 3)  # (in, out/groups, kernel)
    dense = w.double().transpose(0, 1).reshape(4, -1).numpy()
    assert_agrees(weight_statistics(w, transposed=True), np.linalg.svd(dense, compute_uv=False))
    blocks = [w.double()[i : i + 3].transpose(0, 1).reshape(4, -1).numpy() for i in (0, 3)]
    values = np.concatenate([np.linalg.svd(block, compute_uv=False) for block in blocks])
    assert_agrees(weight_statistics(w, groups=2, transposed=True), values)


def test_a_depthwise_convolution_and_the_scale_of_a_norm() -> None:
    w = torch.randn(300, 1, 3, 3)
    assert_agrees(weight_statistics(w, groups=300), w.double().flatten(1).norm(dim=1).numpy())
    scale = torch.rand(64) + 0.5
    assert_agrees(weight_statistics(scale, groups=64), scale.double().numpy())
    assert_agrees(weight_statistics(scale), np.array([scale.double().norm().item()]))


def test_the_gram_route_needs_no_svd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.linalg, "svdvals", lambda _: pytest.fail("an SVD was computed"))
    values = np.logspace(0, -4, 30)
    assert_agrees(weight_statistics(with_spectrum(80, 30, values)), values, rel=1e-6)


def test_what_the_gram_matrix_cannot_resolve_comes_from_an_svd() -> None:
    values = np.logspace(0, -11, 20)
    found = weight_statistics(with_spectrum(50, 20, values))
    assert found.condition_number == pytest.approx(1e11, rel=1e-3)
    assert (found.rank, found.note) == (20, None)


def no_convergence(_: torch.Tensor) -> torch.Tensor:
    raise torch.linalg.LinAlgError("did not converge")


@pytest.mark.parametrize("change", [(module, "SVD_LIMIT", 10), (torch.linalg, "svdvals", no_convergence)])
def test_where_there_is_no_svd_the_note_says_so(
    monkeypatch: pytest.MonkeyPatch, change: tuple[object, str, object]
) -> None:
    monkeypatch.setattr(*change)
    found = weight_statistics(with_spectrum(50, 20, [*np.logspace(0, -2, 18), 1e-9, 1e-10]))
    assert found.condition_number is None
    assert found.rank == 18
    assert found.note.startswith("2 singular values under 1e-07")


@pytest.mark.parametrize("limit", [10, 2**22])
def test_a_deficient_rank_has_no_condition_number(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(module, "SVD_LIMIT", limit)
    found = weight_statistics(with_spectrum(40, 25, np.linspace(1, 2, 7)))
    assert found.rank == 7
    assert found.condition_number is None
    assert found.effective_rank == pytest.approx(from_singular_values(np.linspace(1, 2, 7))["effective_rank"], rel=1e-9)


def test_empty_columns_are_rank_known_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.linalg, "svdvals", lambda _: pytest.fail("an SVD was computed"))
    w = torch.randn(60, 20)
    w[:, [3, 5, 19]] = 0
    found = weight_statistics(w)
    assert (found.rank, found.zeros, found.condition_number, found.note) == (17, 180, None, None)
    kept = np.linalg.svd(w[:, w[0] != 0].double().numpy(), compute_uv=False)
    assert found.effective_rank == pytest.approx(from_singular_values(kept)["effective_rank"], rel=1e-9)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e5m2])
def test_non_finite_entries_are_counted_and_nothing_else_is(bad: float, dtype: torch.dtype) -> None:
    w = torch.randn(30, 12)
    w[3, 4] = w[20, 1] = bad
    w[0, 0] = 0
    found = weight_statistics(w.to(dtype))
    assert (found.nonfinite, found.zeros) == (2, int((w.to(dtype).float() == 0).sum()))
    for name in (*SCALARS, "rank", "tail_exponent", "tail_distance", "tail_start", "tail_count"):
        assert getattr(found, name) is None
    assert "2 of 360" in found.note


def test_weights_without_anything_in_them() -> None:
    for shape in [(0,), (0, 7), (7, 0), (3, 0, 2)]:
        found = weight_statistics(torch.zeros(shape))
        assert (found.rank, found.zeros, found.spectral_norm) == (0, 0, None)
        assert "no entries" in found.note
    found = weight_statistics(torch.zeros(4, 5))
    assert (found.spectral_norm, found.frobenius_norm, found.rank, found.zeros) == (0.0, 0.0, 0, 20)
    assert found.stable_rank is found.effective_rank is found.condition_number is None
    assert "complex" in weight_statistics(torch.zeros(2, 2, dtype=torch.complex64)).note


def test_rows_that_are_no_multiple_of_the_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="5 rows cannot be 2 groups"):
        weight_statistics(torch.zeros(5, 3) + 1, groups=2)


@pytest.mark.parametrize("exponent", [-300, -160, 160, 300])
def test_extreme_scales(exponent: int) -> None:
    w = torch.randn(20, 30, dtype=torch.float64)
    plain, scaled = weight_statistics(w), weight_statistics(w * 10.0**exponent)
    for name in ("stable_rank", "effective_rank", "condition_number", "tail_exponent"):
        assert getattr(scaled, name) == pytest.approx(getattr(plain, name), rel=1e-9)
    for name in ("spectral_norm", "frobenius_norm"):
        assert getattr(scaled, name) == pytest.approx(getattr(plain, name) * 10.0**exponent, rel=1e-9)
    assert (scaled.tail_start is None) == (exponent >= 160)  # λ = σ² has no number then


def test_the_tail_is_that_of_the_squared_singular_values() -> None:
    w = torch.randn(100, 60, dtype=torch.float64)
    expected = power_law(torch.linalg.svdvals(w).square())
    found = weight_statistics(w)
    assert found.tail_exponent == pytest.approx(expected.exponent, rel=1e-8)
    assert found.tail_distance == pytest.approx(expected.distance, rel=1e-8)
    assert found.tail_start == pytest.approx(expected.start, rel=1e-8)
    assert found.tail_count == expected.count
    assert weight_statistics(w[:, :9]).tail_exponent is None


def test_a_heavy_tail_is_measured() -> None:
    eigenvalues = np.random.default_rng(0).random(800) ** (-1 / 1.5)  # density ∝ λ^-2.5
    found = weight_statistics(with_spectrum(900, 800, np.sqrt(eigenvalues)))
    assert found.tail_exponent == pytest.approx(2.5, abs=4 * 1.5 / math.sqrt(found.tail_count))


def test_beyond_the_memory_only_norms() -> None:
    for w in (
        torch.randn(300, 200),
        torch.randn(200, 300).bfloat16(),
        torch.randn(300, 200).double(),
        torch.ones(9, 5),
    ):
        found = weight_statistics(w, memory=0)
        s = np.linalg.svd(w.double().numpy(), compute_uv=False)
        assert found.spectral_norm == pytest.approx(s[0], rel=1e-6)
        assert found.frobenius_norm == pytest.approx(np.linalg.norm(s), rel=1e-9)
        assert found.stable_rank == pytest.approx((s**2).sum() / s[0] ** 2, rel=2e-6)
        assert found.rank is found.condition_number is found.effective_rank is None
        assert "only norms" in found.note
    grouped = torch.randn(6, 40, 9)
    assert weight_statistics(grouped, groups=2, memory=0).spectral_norm == pytest.approx(
        weight_statistics(grouped, groups=2).spectral_norm, rel=1e-6
    )


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), rows=st.integers(1, 15), columns=st.integers(1, 15), exponent=st.integers(-40, 40))
def test_rotations_and_scales(seed: int, rows: int, columns: int, exponent: int) -> None:
    torch.manual_seed(seed)
    w = torch.randn(rows, columns, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(rows, rows, dtype=torch.float64)).Q
    plain, moved = weight_statistics(w), weight_statistics(rotation @ w * 2.0**exponent)
    assert moved.rank == plain.rank
    # σ_min is known to √eps·RESOLVED: five digits at the worst.
    assert moved.condition_number == pytest.approx(plain.condition_number, rel=1e-5)
    assert moved.stable_rank == pytest.approx(plain.stable_rank, rel=1e-9)
    assert moved.effective_rank == pytest.approx(plain.effective_rank, rel=1e-9)
    assert moved.spectral_norm == pytest.approx(plain.spectral_norm * 2.0**exponent, rel=1e-9)
    assert plain.stable_rank >= 1 - 1e-12
    assert plain.stable_rank <= plain.effective_rank * (1 + 1e-9)
    assert plain.effective_rank <= plain.rank * (1 + 1e-12)


MEASURE = """
import resource, torch
from curvlab.analyses.weight_statistics import weight_statistics
weight_statistics(torch.randn(60, 50))
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
weight = torch.empty({shape}, dtype=torch.{dtype}).normal_()
before = peak()
found = weight_statistics(weight)
assert found.spectral_norm > 1
print((peak() - before) / 2**20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux only")
@pytest.mark.parametrize(("shape", "dtype"), [((60_000, 512), "float32"), ((120, 300_000), "bfloat16")])
def test_memory_is_bounded_by_pieces(shape: tuple[int, int], dtype: str) -> None:
    """A float64 copy would be 234 or 275 MiB; pieces of 32 MiB, their rounding and the thread pools are under 140."""
    script = MEASURE.format(shape=shape, dtype=dtype)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 140


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_product_of_low_rank_is_singular_and_has_a_condition_over_its_range(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(128, 8, dtype=dtype, generator=generator) for _ in range(2))
    w = left @ right.T
    found = weight_statistics(w)
    s = np.linalg.svd(w.double().numpy(), compute_uv=False)
    assert (found.rank, found.size, found.condition_number) == (8, 128, None)
    assert found.rank == np.linalg.matrix_rank(w.numpy())
    assert found.condition_number_nonzero == pytest.approx(s[0] / s[7], rel=1e-6)


def test_full_rank_has_one_condition_number() -> None:
    found = weight_statistics(torch.randn(30, 20, generator=torch.Generator().manual_seed(1)))
    assert found.condition_number == found.condition_number_nonzero
    assert (found.rank, found.size) == (20, 20)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_square_random_matrices_are_not_called_singular(dtype: torch.dtype) -> None:
    """Their least σ is about 1/(4n) of the largest, far above what rounding to float32 makes."""
    w = torch.randn(1800, 1800, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert weight_statistics(w).rank == 1800


def test_small_entries_of_a_diagonal_are_no_rounding() -> None:
    scale = torch.tensor([1.0, 1e-9, 0.5])
    found = weight_statistics(scale, groups=3)
    assert found.rank == 3
    assert found.condition_number == pytest.approx(1e9, rel=1e-6)


def test_the_rounding_of_each_group_is_its_own() -> None:
    w = torch.randn(6, 3, generator=torch.Generator().manual_seed(2))
    w[:3] *= 1e-12
    found = weight_statistics(w, groups=2)
    s = np.concatenate([np.linalg.svd(part.double().numpy(), compute_uv=False) for part in w.chunk(2)])
    assert found.rank == 6
    assert found.condition_number == pytest.approx(s.max() / s.min(), rel=1e-6)
