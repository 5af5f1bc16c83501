"""The analysis `fop` against dense matrices written out, and against autograd on the whole data."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import curvlab
from curvlab.analyses.fop import fop_result
from curvlab.analyses.fop_structure import angle, kernel_structure
from curvlab.document.json import dumps
from curvlab.errors import CurvlabError
from curvlab.formats.curvlab_file.fop_matrices import FopMatrices
from curvlab.optim.fop.learned_matrix import LearnedMatrix

NAMES = ("0.weight", "3.weight")
SHAPES = {"0.weight": (2, 1, 2, 3), "3.weight": (3, 12)}


def dense(m: Tensor, low_rank: bool, normalized: bool) -> Tensor:
    p = m @ m.T + (torch.eye(len(m)) if low_rank else 0)
    return p * len(m) ** 0.5 / torch.linalg.matrix_norm(p) if normalized else p


def learned(seed: int = 0, low_rank: bool = False, normalized: bool = False) -> FopMatrices:
    generator = torch.Generator().manual_seed(seed)
    sizes = {"0.weight": 6, "3.weight": 12}
    factors = {n: torch.randn(d, 2 if low_rank else d, generator=generator).double() for n, d in sizes.items()}
    form = "low-rank" if low_rank else "full"
    return FopMatrices(factors, dict.fromkeys(NAMES, form), dict.fromkeys(NAMES, normalized))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, (2, 3)), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3))


def some(count: int = 30) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 1, 3, 5, generator=generator), torch.randint(0, 3, (count,), generator=generator)


def written(path, fop: FopMatrices, **recorded: str) -> str:
    curvlab.save(path, network(), likelihood="categorical", fop=fop, **recorded)
    return str(path)


@pytest.mark.parametrize("kernel", [(3, 3), (2, 3), (1, 4), (5,), (2, 2, 3), (1, 1), ()])
@pytest.mark.parametrize("form", [LearnedMatrix(), LearnedMatrix(rank=2), LearnedMatrix(rank=2, normalized=True)])
def test_the_structure_is_that_of_the_matrix_written_out(kernel: Sequence[int], form: LearnedMatrix, float64) -> None:
    d = math.prod(kernel) if kernel else 7
    m = torch.randn(d, min(d, 2 if form.rank else d))
    p = dense(m, form.rank is not None, form.normalized)
    places = list(product(*map(range, kernel))) if kernel else [(10 * i,) for i in range(d)]
    steps: list[list[float]] = [[] for _ in kernel]
    others = []
    for i, j in product(range(d), repeat=2):
        if i < j:
            apart = [b - a for a, b in zip(places[i], places[j], strict=True)]
            axes = [axis for axis, step in enumerate(apart) if step]
            near = len(axes) == 1 and abs(apart[axes[0]]) == 1 and kernel
            (steps[axes[0]] if near else others).append(p[i, j].item())
    found = kernel_structure(form.operator(m), kernel)
    near = [value for values in steps for value in values]
    assert found.diagonal == pytest.approx(p.diagonal().mean().item())
    assert found.neighbours == tuple(pytest.approx(np.mean(v)) if v else None for v in steps)
    assert found.others == (pytest.approx(np.mean(others), abs=1e-12) if others else None)
    assert found.negative == (pytest.approx(np.mean(np.array(near) < 0)) if near else None)


def test_a_whitening_matrix_is_all_negative_beside_its_diagonal() -> None:
    """2I less the graph of the neighbours, as Figure 5a shows it."""
    p = 3 * torch.eye(9, dtype=torch.float64)
    for i, j in product(range(9), repeat=2):
        if abs(i // 3 - j // 3) + abs(i % 3 - j % 3) == 1:
            p[i, j] = -0.5
    found = kernel_structure(LearnedMatrix().operator(torch.linalg.cholesky(p)), (3, 3))
    assert found.diagonal == pytest.approx(3)
    assert found.neighbours == (pytest.approx(-0.5), pytest.approx(-0.5))
    assert found.others == pytest.approx(0, abs=1e-12)
    assert found.negative == 1


@pytest.mark.parametrize(("low_rank", "normalized"), [(False, False), (True, False), (True, True), (False, True)])
def test_eigenvalues_and_norm_are_numpys(low_rank: bool, normalized: bool, float64) -> None:
    fop = learned(0, low_rank, normalized)
    for name in NAMES:
        p = dense(fop.factors[name], low_rank, normalized).numpy()
        found = fop_result(fop, name, "layer", SHAPES[name])
        values = np.linalg.eigvalsh(p)
        assert found.spectrum is not None
        assert (found.spectrum.min, found.spectrum.max) == (pytest.approx(values[0]), pytest.approx(values[-1]))
        assert found.spectrum.trace == pytest.approx(np.trace(p))
        assert found.spectrum.quantiles == pytest.approx(np.quantile(values, [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1]))
        assert found.norm == pytest.approx(np.linalg.norm(p))
        assert (found.form, found.rank) == (("low-rank", 2) if low_rank else ("full", len(p)))
        assert found.kernel == ((2, 3) if name == "0.weight" else None)
        assert found.angle is None


def rotated(fop: FopMatrices, name: str, loss: Tensor, weights: dict[str, Tensor]) -> float:
    """∠(g, Pg) in degrees, by numpy."""
    (g,) = torch.autograd.grad(loss, weights[name], retain_graph=True)
    rows = g.reshape(-1, len(fop.factors[name])).double().numpy()
    form = fop.form(name)
    u = rows @ dense(fop.factors[name], form.rank is not None, form.normalized).numpy()
    return math.degrees(math.acos((rows * u).sum() / np.linalg.norm(rows) / np.linalg.norm(u)))


@pytest.mark.parametrize("low_rank", [False, True])
@pytest.mark.parametrize("how", ["tensors", "small batches", "loader", "generator", "fop alone"])
def test_the_angle_is_of_the_mean_gradient_at_the_data_s_own_targets(tmp_path, how: str, low_rank: bool) -> None:
    fop, (x, y) = learned(2, low_rank), some()
    path = written(tmp_path / "m", fop)
    loader = DataLoader(TensorDataset(x, y), batch_size=7)
    data = {"loader": loader, "generator": (batch for batch in loader)}.get(how, (x, y))
    options = {"small batches": {"batch_size": 4}, "fop alone": {"analyses": ("fop",)}}.get(how, {})
    analysis = curvlab.analyze(path, data, **options)
    network = curvlab.load(path).module
    weights = dict(network.named_parameters())
    loss = F.cross_entropy(network(x), y)
    assert [one.parameter for one in analysis.fop] == list(NAMES)
    for one in analysis.fop:
        assert one.angle.degrees == pytest.approx(rotated(fop, one.parameter, loss, weights), rel=1e-4)  # float32
        assert (one.angle.targets, one.angle.examples) == ("data", 30)
    assert (analysis["0"].kfac is None) == (how == "fop alone")


def test_looking_at_the_gradient_changes_nothing_else(tmp_path) -> None:
    x, y = some()
    with_fop = curvlab.analyze(written(tmp_path / "a", learned()), (x, y))
    without = curvlab.analyze(written(tmp_path / "b", None), (x, y))
    assert with_fop.layers == without.layers
    assert with_fop.coverage == without.coverage
    assert with_fop.fop
    assert not without.fop
    assert not curvlab.analyze(written(tmp_path / "a", learned()), analyses=("weights",)).fop


def test_targets_are_drawn_where_there_are_none_or_none_that_fit(tmp_path) -> None:
    x, _ = some()
    path = written(tmp_path / "m", learned())
    angles = {}
    for name, data in {"none": x, "small": x, "unfit": (x, torch.rand(30, 2))}.items():
        options = {"batch_size": 7} if name == "small" else {}
        chosen = ("fop", "moments")
        analysis = curvlab.analyze(path, data, loss="cross-entropy", analyses=chosen, seed=5, **options)
        assert {one.angle.targets for one in analysis.fop} == {"drawn"}
        angles[name] = [one.angle.degrees for one in analysis.fop]
    assert angles["small"] == pytest.approx(angles["none"], rel=1e-4)
    assert angles["unfit"] == angles["none"]
    assert all(0 < one < 90 for one in angles["none"])
    other = curvlab.analyze(path, x, loss="cross-entropy", analyses=("fop",), seed=6)
    assert [one.angle.degrees for one in other.fop] != angles["none"]


def test_angles() -> None:
    e = torch.eye(3, dtype=torch.float64)
    assert angle(e[0], 7 * e[0]) == 0
    assert angle(e[0], e[1] * 1e-100) == pytest.approx(90)
    assert angle(e[0], e[0] + 1e-9 * e[1]) == pytest.approx(math.degrees(1e-9))  # an arc cosine would say 0
    assert angle(e[0], -e[0]) == pytest.approx(180)
    assert angle(0 * e[0], e[0]) is None
    assert angle(e[0], e[0] * math.nan) is None


def test_a_parameter_that_no_gradient_reaches_has_no_angle(tmp_path) -> None:
    fop = learned()
    curvlab.save(
        tmp_path / "m", nn.Sequential(*network()[:3], nn.Linear(12, 3), nn.ReLU()), likelihood="categorical", fop=fop
    )
    module = curvlab.load(tmp_path / "m").module
    with torch.no_grad():
        module[3].bias.fill_(-1e9)  # every output is cut off at 0
    curvlab.save(tmp_path / "n", module, likelihood="categorical", fop=fop)
    analysis = curvlab.analyze(tmp_path / "n", some(), analyses=("fop",))
    assert [one.angle.degrees for one in analysis.fop] == [None, None]


def test_numbers_that_are_not_finite_are_a_note(tmp_path) -> None:
    fop = learned()
    fop.factors["0.weight"][1, 2] = math.nan
    analysis = curvlab.analyze(written(tmp_path / "m", fop), some())
    broken, sound = analysis.fop
    assert broken.note == "1 of 36 entries of M are not finite"
    assert (broken.spectrum, broken.norm, broken.structure, broken.angle) == (None, None, None, None)
    assert sound.spectrum is not None
    json.loads(dumps(analysis.to_dict()), parse_constant=pytest.fail)


def test_numbers_too_large_to_square_are_a_note_too() -> None:
    fop = learned()
    fop.factors["0.weight"][0, 0] = 1e300
    found = fop_result(fop, "0.weight", "layer", SHAPES["0.weight"])
    assert found.note
    assert found.norm is None
    assert found.spectrum is None
    assert found.structure is None


def test_a_memory_limit_spares_the_eigenvalues_alone() -> None:
    found = fop_result(learned(), "3.weight", "layer", SHAPES["3.weight"], memory=16 * 12 * 12 - 1)
    assert found.spectrum is None
    assert "2304 bytes" in found.note
    assert found.structure is not None
    assert fop_result(learned(), "3.weight", "layer", SHAPES["3.weight"], memory=16 * 12 * 12).spectrum is not None


def test_without_a_network_there_is_the_matrix_alone(tmp_path) -> None:
    curvlab.save(tmp_path / "m", network(), architecture="somewhere:build", fop=learned())
    analysis = curvlab.analyze(tmp_path / "m")
    assert [(one.name, one.kernel, one.angle) for one in analysis.fop] == [("0", (2, 3), None), ("3", None, None)]
    assert {layer.name for layer in analysis.layers} == {"0", "3"}


def test_layers_are_chosen_by_name_and_the_document_has_their_matrices(tmp_path) -> None:
    path = written(tmp_path / "m", learned())
    analysis = curvlab.analyze(path, layers=("3",))
    (one,) = analysis.to_dict()["fop"]
    assert (one["name"], one["parameter"], one["kernel"], one["angle"]) == ("3", "3.weight", None, None)
    assert set(one) == {
        *("name", "parameter", "form", "size", "rank", "normalized", "kernel"),
        *("spectrum", "norm", "structure", "angle", "note"),
    }
    assert set(one["structure"]) == {"diagonal", "neighbours", "others", "negative"}


def test_the_analysis_needs_matrices(tmp_path) -> None:
    with pytest.raises(CurvlabError, match="'fop' needs the matrices that FOP has learned"):
        curvlab.analyze(written(tmp_path / "m", None), analyses=("fop",))


def test_the_estimate_counts_the_eigenvalues_of_one_matrix_after_another(tmp_path) -> None:
    path, weights = written(tmp_path / "m", learned(low_rank=True)), curvlab.estimate(network())
    found = curvlab.estimate(path)
    assert found.blocks[:-2] == weights.blocks
    assert [(b.name, b.input_size, b.output_size, b.memory, b.work) for b in found.blocks[-2:]] == [
        ("0.weight", 6, 2, 16 * 2**2 + 8 * 6 * 2, 6 * 2**2 + 2**3),
        ("3.weight", 12, 2, 16 * 2**2 + 8 * 12 * 2, 12 * 2**2 + 2**3),
    ]
    assert found.memory == max(16 * 2**2 + 8 * 12 * 2, weights.memory)
    assert found.work == weights.work + sum(b.work for b in found.blocks[-2:])
    assert curvlab.estimate(path, analyses=("weights",)).blocks == weights.blocks

    path = written(tmp_path / "full", learned())
    on_data = curvlab.estimate(path, some())
    assert [b.name for b in on_data.blocks if b.kind == "FOP's matrix"] == ["0.weight", "3.weight"]
    assert on_data.memory >= 16 * 12**2 + 8 * 12 * 12
    (small,) = (b for b in curvlab.estimate(path, max_memory=16 * 6**2).blocks if b.kind == "FOP's matrix")
    assert small.name == "0.weight"  # the other's eigenvalues are left out, as in the analysis
