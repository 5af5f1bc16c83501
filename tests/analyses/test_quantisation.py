"""The analysis `quantisation` against closed forms and dense matrices, and planted outliers among ordinary layers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import curvlab
from curvlab.analyses.gptq_damping import damping, damping_bias, smallest_damping
from curvlab.analyses.quantisation import QuantisationResult
from curvlab.analyses.weight_outliers import weight_range
from curvlab.analyses.weight_statistics import weight_blocks
from curvlab.operators.operator import Dense
from curvlab.reports.sorting import ordered


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def factorised(m: np.ndarray) -> bool:
    """Cholesky by hand, every operation rounded to float32."""
    m = m.astype(np.float32)
    low = np.zeros_like(m)
    for j in range(len(m)):
        pivot = m[j, j] - low[j, :j] @ low[j, :j]
        if not pivot > 0:
            return False
        low[j, j] = np.sqrt(pivot)
        low[j + 1 :, j] = (m[j + 1 :, j] - low[j + 1 :, :j] @ low[j, :j]) / low[j, j]
    return True


# The weight


@pytest.mark.parametrize("shape", [(7, 9), (4, 3, 2, 2), (6, 1)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_range_of_a_weight_is_numpys(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    weight = normal(*shape).to(dtype)
    found = weight_range(weight_blocks(weight, 1, False))
    w = weight.double().numpy().reshape(shape[0], -1)
    rows, columns = np.abs(w).max(1), np.abs(w).max(0)
    centred = w - w.mean()
    assert found.largest == np.abs(w).max()
    assert found.kurtosis == pytest.approx((centred**4).mean() / (centred**2).mean() ** 2, rel=1e-12)
    assert found.row_maxima == pytest.approx(np.quantile(rows, [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1]), rel=1e-12)
    assert (found.worst_row, found.worst_column) == (rows.argmax(), columns.argmax())
    if w.shape[1] > 1:
        assert found.row_ratio == pytest.approx(rows.max() / np.median(rows), rel=1e-12)
        assert found.column_ratio == pytest.approx(columns.max() / np.median(columns), rel=1e-12)
    else:  # an entry has no range
        assert found.row_ratio is None
        assert found.column_ratio is not None


def test_a_transposed_and_a_grouped_weight_have_their_own_rows() -> None:
    stored = normal(6, 2, 5)  # (in, out/groups, kernel) of a transposed convolution with two groups
    stored[4, 1] *= 1000  # inputs 3 to 5 are those of the second group: output 3 of 4, column 1 of its three
    found = weight_range(weight_blocks(stored, 2, True))
    assert found.worst_row == 3
    assert found.worst_column // 5 == 3 + 1
    assert found.outlier_rows == 1


def test_what_cannot_be_told_of_a_weight() -> None:
    zero = weight_range(torch.zeros(1, 3, 4))
    assert (zero.largest, zero.kurtosis, zero.row_ratio, zero.outlier_rows) == (0.0, None, None, 0)
    half = torch.zeros(1, 4, 4)
    half[0, 0] = 1.0  # the median row is 0
    assert weight_range(half).row_ratio is None
    scales = weight_range(weight_blocks(torch.arange(1.0, 9.0), 8, False))
    assert (scales.row_ratio, scales.column_ratio) == (None, None)


def test_normal_numbers_have_kurtosis_3_and_two_values_have_1() -> None:
    assert weight_range(normal(1, 500, 400)).kurtosis == pytest.approx(3, abs=0.05)  # five times √(24/n)
    signs = torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]])
    assert weight_range(signs).kurtosis == pytest.approx(1, rel=1e-12)


# The damping


def test_the_least_damping_of_a_regular_matrix_is_0() -> None:
    m = normal(40, 12)
    assert smallest_damping((m.T @ m / 40)[None]) == 0.0


@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e15])
@pytest.mark.parametrize("rank", [3, 11])
def test_the_least_damping_of_a_singular_matrix_is_where_float32_gives_way(rank: int, scale: float) -> None:
    rows = normal(rank, 30, seed=rank)
    m = rows.T @ rows / rank * scale
    found = smallest_damping(m[None])
    assert found is not None
    unit = (m / m.diagonal().mean()).numpy()
    # Two implementations of one factorisation round differently: what fails is known to a small factor.
    assert factorised(unit + 8 * found * np.eye(30))
    assert not factorised(unit)
    # A pivot is rounded by about d·eps of the mean diagonal.
    assert 1e-3 * 30 * 2**-24 < found < 30 * 2**-20


def test_the_least_damping_is_known_to_a_tenth() -> None:
    """M = [[1, 1], [1, 1 − 2δ]] has λ_min near −δ, far above float32's rounding."""
    delta = 0.01
    m = torch.tensor([[1.0, 1.0], [1.0, 1 - 2 * delta]], dtype=torch.float64)
    mean = 1 - delta
    needed = (-(2 - 2 * delta) + math.sqrt((2 - 2 * delta) ** 2 + 8 * delta)) / 2 / mean  # −λ_min / mean
    found = smallest_damping(m[None])
    assert found is not None
    assert needed < found < 1.1 * needed


def test_inputs_that_are_always_0_need_no_damping() -> None:
    m = torch.diag(torch.tensor([1.0, 0.0, 4.0], dtype=torch.float64))
    assert smallest_damping(m[None]) == 0.0
    assert smallest_damping(torch.zeros(1, 3, 3, dtype=torch.float64)) == 0.0


@pytest.mark.parametrize("p", [0.01, 0.1])
def test_the_bias_of_white_inputs_is_p_over_1_plus_p(p: float) -> None:
    m = 7.0 * torch.eye(5, dtype=torch.float64)
    assert damping_bias(m[None], normal(1, 3, 5), p) == pytest.approx(p / (1 + p), rel=1e-12)


def test_the_bias_is_that_of_the_regularised_solution() -> None:
    """By numpy's least squares: rows of data, and √λ I below them with targets 0."""
    x, w, p = normal(50, 8, seed=1).numpy() * np.logspace(0, 2, 8), normal(3, 8, seed=2).numpy(), 0.01
    lam = p * (x**2).mean(0).mean()
    below = math.sqrt(50 * lam) * np.eye(8)
    fitted = np.linalg.lstsq(np.vstack([x, below]), np.vstack([x @ w.T, np.zeros((8, 3))]), rcond=None)[0].T
    wanted = np.linalg.norm(x @ (w - fitted).T) / np.linalg.norm(x @ w.T)
    m = torch.from_numpy(x.T @ x / 50)
    assert damping_bias(m[None], torch.from_numpy(w)[None], p) == pytest.approx(wanted, rel=1e-9)


def test_groups_are_damped_each_by_its_own_mean() -> None:
    stack = torch.stack([torch.eye(2), 100 * torch.eye(2)]).double()
    assert damping_bias(stack, torch.ones(2, 3, 2).double()) == pytest.approx(0.01 / 1.01, rel=1e-12)
    assert damping_bias(torch.zeros(1, 2, 2).double(), torch.ones(1, 3, 2).double()) is None


# On models


def network() -> nn.Module:
    torch.manual_seed(0)
    parts = (nn.Linear(12, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 3))
    return nn.Sequential(*parts)


def inputs(count: int = 90) -> Tensor:
    x = normal(count, 12, seed=3).float()
    x[:, 4] = 0.0
    x[:, 5] = 1.0
    x[:, 6] = (256 * x[:, 6]).round() / 256
    x[:, 7] = 2 * x[:, 6] - 1  # exact in float32
    x[:, 9] *= 30
    return x


def test_the_inputs_of_a_layer_are_counted() -> None:
    x = inputs()
    analysis = curvlab.analyze(network(), x, analyses=("quantisation",))
    found = analysis["0"].quantisation.inputs
    energy = (x.double() ** 2).mean(0).numpy()
    assert (found.count, found.size) == (90, 12)
    assert found.rank == np.linalg.matrix_rank(x.double().numpy()) == 10  # one is 0, one is of two others
    assert (found.dead, found.zero, found.duplicated) == (2, 1, 1)
    assert found.channel_ratio == pytest.approx(energy.max() / np.median(energy[energy > 0]), rel=1e-6)
    assert (found.outlier_channels, found.worst_channel) == (1, 9)


def test_a_convolution_is_biased_as_its_patches_say() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3, groups=2), nn.Flatten(), nn.Linear(16, 2))
    x = normal(20, 2, 4, 4).float()
    found = curvlab.analyze(model, x, analyses=("quantisation",))["0"].quantisation
    lost = kept = 0.0
    for group in range(2):
        rows = nn.functional.unfold(x[:, group : group + 1].double(), 3).transpose(1, 2).flatten(0, 1).numpy()
        w = model[0].weight.detach().double().numpy()[2 * group : 2 * group + 2].reshape(2, 9)
        m = rows.T @ rows / len(rows)
        lam = 0.01 * np.diag(m).mean()
        error = w - w @ m @ np.linalg.inv(m + lam * np.eye(9))
        lost, kept = lost + np.trace(error @ m @ error.T), kept + np.trace(w @ m @ w.T)
    assert found.inputs.stock_bias == pytest.approx(math.sqrt(lost / kept), rel=1e-6)
    assert found.inputs.damping == 0.0


def test_fewer_rows_than_features_and_embeddings() -> None:
    """M kept as rows, and M kept as a diagonal, give what the matrices written out give."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(7, 5), nn.Flatten(), nn.Linear(15, 3))
    tokens = torch.tensor([[0, 1, 2], [0, 0, 3], [1, 2, 0]])
    analysis = curvlab.analyze(model, tokens, analyses=("quantisation",))
    counts = np.bincount(tokens.flatten().numpy(), minlength=7) / 9
    table = model[0].weight.detach().double().numpy()
    lam = 0.01 * counts[counts > 0].mean()
    outputs = counts * (table**2).sum(1)
    wanted = math.sqrt((outputs * (lam / (counts + lam)) ** 2).sum() / outputs.sum())
    one_hot = analysis["0"].quantisation.inputs
    assert (one_hot.zero, one_hot.rank, one_hot.damping) == (3, 4, 0.0)
    assert one_hot.stock_bias == pytest.approx(wanted, rel=1e-6)
    x = model[0](tokens).flatten(1).detach().double()
    m = x.T @ x / 3
    few = analysis["2"].quantisation.inputs
    assert few.stock_bias == pytest.approx(damping_bias(m[None], model[2].weight.detach().double()[None]), rel=1e-6)
    assert few.damping > 0


@pytest.mark.parametrize("where", ["row", "column"])
def test_a_planted_outlier_ranks_above_ordinary_layers(where: str) -> None:
    model = network()
    with torch.no_grad():
        planted = model[4].weight
        planted[7] *= 20 if where == "row" else 1
        planted[:, 7] *= 20 if where == "column" else 1
    analysis = curvlab.analyze(model, analyses=("quantisation",))
    first = ordered(analysis.layers, "outliers")[0]
    assert first.name == "4"
    found = first.quantisation.weight
    count, place = (
        (found.outlier_rows, found.worst_row) if where == "row" else (found.outlier_columns, found.worst_column)
    )
    assert (count, place) == (1, 7)
    ordinary = [one.quantisation.weight for one in analysis.layers if one.name != "4"]
    assert all(one.outlier_rows == one.outlier_columns == 0 for one in ordinary)


def test_an_outlier_channel_ranks_its_layer_first() -> None:
    model = network()
    with torch.no_grad():
        model[0].weight *= 0.01
        model[0].bias.zero_()
        model[0].bias[3] = 1.0  # input 3 of layer 2 is near tanh(1), the others are near 0
    analysis = curvlab.analyze(model, normal(50, 12).float(), analyses=("quantisation",))
    first = ordered(analysis.layers, "channels")[0]
    assert (first.name, first.quantisation.inputs.worst_channel) == ("2", 3)


def test_from_the_file_alone_the_weights_are_known_and_a_note_says_what_is_not() -> None:
    model = network()
    with torch.no_grad():
        model[2].weight[0, 0] = math.nan
    analysis = curvlab.analyze(model, analyses=("quantisation",))
    assert analysis["0"].quantisation.weight is not None
    assert analysis["0"].quantisation.inputs is None
    broken: QuantisationResult = analysis["2"].quantisation
    assert broken.weight is None
    assert "quantisation of 2: 1 of 1600 entries of the weight are not finite" in analysis.notes
    assert any("--data" in note for note in analysis.notes)
    assert {block.status for block in analysis.coverage.blocks} == {"weights-only"}


def test_inputs_that_are_not_finite_leave_the_weight_known() -> None:
    model, x = network(), inputs()
    x[0, 0] = math.inf
    analysis = curvlab.analyze(model, x, analyses=("quantisation",))
    assert analysis["0"].quantisation.weight is not None
    assert analysis["0"].quantisation.inputs is None
    assert "finite" in analysis["0"].quantisation.note


def test_a_memory_limit_leaves_the_factorisations_out(empty_process: None) -> None:
    x = inputs()
    small = curvlab.analyze(network(), x, analyses=("quantisation",), max_memory=60_000)
    assert small["0"].quantisation.inputs.damping is not None
    assert small["2"].quantisation.inputs is None  # its moments alone are too large
    m, w = torch.eye(4).double(), torch.ones(1, 2, 4)
    needed = 32 * 4**2
    assert damping(Dense(m), w, needed - 1) == (None, None)
    assert damping(Dense(m), w, needed) == (0.0, pytest.approx(0.01 / 1.01))


def test_it_is_done_when_asked_for_and_estimated_before() -> None:
    model, x = network(), inputs()
    document = curvlab.analyze(model, (x, None), loss="mse").to_dict()
    assert all("quantisation" not in layer for layer in document["layers"])
    asked = curvlab.analyze(model, x, analyses=("quantisation", "weights")).to_dict()
    assert asked["settings"]["analyses"] == ["weights", "quantisation"]
    assert all(layer["quantisation"]["weight"] for layer in asked["layers"])
    blocks = curvlab.estimate(model, x, analyses=("quantisation",)).blocks
    assert [b.input_size for b in blocks if b.kind == "factors of M"] == [12, 40, 40, 40]
