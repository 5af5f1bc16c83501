"""Tables and output layers of a vocabulary: nothing of its size squared, and the same numbers as dense oracles."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import curvlab
from curvlab.capture.survey import survey
from curvlab.curvature import kfac_factors, tensor_normal_factors
from curvlab.curvatures.curvature import Curvature
from curvlab.curvatures.gradient_moments import GradientMoments
from curvlab.curvatures.kept_rows import averaged, operator_of, rows_or_square
from curvlab.curvatures.room import Room
from curvlab.curvatures.tensor_normal import TensorNormalCurvature
from curvlab.errors import MemoryBudgetError
from curvlab.likelihoods import Categorical
from curvlab.operators.diagonal import diagonal
from curvlab.operators.eigenvalues import eigenvalues
from curvlab.operators.matrix import matrix
from curvlab.operators.on_columns import OnColumns
from curvlab.operators.operator import Kronecker
from curvlab.operators.sketch import Sketch
from curvlab.operators.spectrum import spectrum
from curvlab.operators.trace import trace
from tests.oracles import contraction, fisher_columns

WORDS, WIDTH = 23, 5


class Speller(nn.Module):
    """Words to scores of the next word at every position; `tied` to the table, and with a padding word."""

    def __init__(self, tied: bool = False, padding: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(WORDS, WIDTH, padding_idx=padding)
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, WORDS, bias=False)
        if tied:
            self.head.weight = self.table.weight

    def forward(self, words: Tensor) -> Tensor:
        return self.head(torch.tanh(self.mix(self.table(words))).cumsum(1)).movedim(-1, 1)


def batch(examples: int = 6, length: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randint(0, WORDS, (examples, length), generator=generator) for _ in range(2))


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for matrices of the width, but none of the vocabulary."""
    monkeypatch.setattr(Curvature, "room", Room(8 * (WORDS - 1) ** 2))


@pytest.mark.usefixtures("float64", "narrow")
@pytest.mark.parametrize("statistic", ["per-example", "batch"])
@pytest.mark.parametrize("padding", [None, 3])
@pytest.mark.parametrize("tied", [False, True])
def test_tensor_normal_factors_of_a_vocabulary_are_those_of_autograd(
    tied: bool, padding: int | None, statistic: str
) -> None:
    model, (x, y) = Speller(tied, padding), batch(4)
    columns = list(fisher_columns(model, x, y, "categorical", "empirical"))
    options = {"likelihood": Categorical(1), "fisher_type": "empirical", "statistic": statistic}
    found = tensor_normal_factors(model, [(x[:3], y[:3]), (x[3:], y[3:])], **options)
    assert list(found) == [name for name, _ in model.named_parameters()]
    for name, result in found.items():
        shape = tuple(dict(model.named_parameters())[name].shape)
        wanted = []
        for mode in range(len(shape)):
            if statistic == "batch":
                means = [{name: columns[0][name][part].mean(0, keepdim=True)} for part in (slice(3), slice(3, 4))]
                wanted.append(sum(contraction([one], name, shape, mode) for one in means) / 2)
            else:
                wanted.append(contraction(columns, name, shape, mode))
        c0 = (wanted[0].trace() / math.prod(shape)) ** (1 / len(shape))
        for mode, (d, operator) in enumerate(zip(shape, result.operators, strict=True)):
            dense = wanted[mode] / (c0 ** (len(shape) - 1) * math.prod(shape) / d)
            torch.testing.assert_close(matrix(operator), dense, rtol=1e-9, atol=1e-12 * dense.abs().max().item())
            torch.testing.assert_close(diagonal(operator), dense.diagonal(), rtol=1e-9, atol=1e-14)


@pytest.mark.usefixtures("float64", "narrow")
def test_only_rows_of_words_that_were_seen_are_kept_of_a_table() -> None:
    model, (x, y) = Speller(), batch()
    found = tensor_normal_factors(model, x, y, likelihood=Categorical(1), statistic="per-example")
    first = found["table.weight"].operators[0]
    assert isinstance(first, OnColumns)
    assert torch.equal(first.columns, x.unique())
    assert first.inner.size == len(x.unique())


@pytest.mark.usefixtures("float64", "narrow")
@pytest.mark.parametrize("examples", [2, 60])
def test_the_gradient_factor_of_a_vocabulary_is_kept_as_rows_or_as_a_sketch_of_them(examples: int) -> None:
    model, (x, y) = Speller(), batch(examples)
    options = {"likelihood": Categorical(1), "fisher_type": "empirical"}
    loader = [(x[i : i + 7], y[i : i + 7]) for i in range(0, examples, 7)]
    found = kfac_factors(model, loader, **options)["head"].gradient_operator
    z = model(x)
    rows = (z.softmax(1) - nn.functional.one_hot(y, WORDS).movedim(-1, 1)).movedim(1, -1).flatten(0, 1).detach()
    dense = rows.T @ rows / len(rows)
    assert isinstance(found, Sketch) == (examples > 2)
    assert len(found.rows) < WORDS
    assert trace(found) == pytest.approx(dense.trace().item(), rel=1e-12)
    torch.testing.assert_close(diagonal(found), dense.diagonal(), rtol=1e-12, atol=0)
    missed = torch.linalg.eigvalsh(dense) - eigenvalues(found)
    shown = spectrum(found)
    assert missed.min().item() > -1e-12
    assert missed.max().item() <= (shown.sketch_error or 0.0) + 1e-12
    assert shown.condition_number is None
    assert shown.condition_number_nonzero is not None


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("cuts", [(60,), (7,), (25, 1)])
def test_sketches_of_parts_are_merged(cuts: tuple[int, ...]) -> None:
    """However rows come: the bound holds, the diagonal is exact, and columns that are not shared are put in place."""
    generator = torch.Generator().manual_seed(2)
    rows = torch.randn(60, 20, generator=generator)
    rows[:30, :6] = 0
    recipe, held, start = GradientMoments(keep_rows=True), {}, 0
    recipe.room = Room(8 * 19**2)
    steps = [cuts[i % len(cuts)] for i in range(60)]
    for step in steps:
        part, start = rows[start : start + step], start + step
        if len(part):
            columns = part.any(0).nonzero().flatten()
            recipe.add(held, rows_or_square("gradient", part[None][..., columns], recipe.room, columns, 20), ())
    found = operator_of(averaged(held, "gradient", 60, None), "gradient")
    dense = rows.T @ rows / 60
    missed = torch.linalg.eigvalsh(dense - matrix(found))
    assert missed.min().item() > -1e-12
    assert missed.max().item() <= (spectrum(found).sketch_error or 0.0) + 1e-12
    torch.testing.assert_close(diagonal(found), dense.diagonal(), rtol=1e-12, atol=0)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("biased", [False, True])
def test_inputs_too_wide_for_a_matrix_are_sketched_with_the_biass_one(
    biased: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = nn.Linear(20, 3, bias=biased)
    x = torch.randn(200, 20) * torch.logspace(0, -2, 20) + 0.3
    y = torch.zeros(200, dtype=torch.long)
    monkeypatch.setattr("curvlab.analyses.memory_plan.room_within", lambda _: Room(8 * 19**2))
    monkeypatch.setattr(Curvature, "room", Room(8 * 19**2))
    found = kfac_factors(model, x, y, likelihood="categorical")[""]
    shown = curvlab.analyze(model, data=(x, y), loss="cross-entropy")
    ones = torch.cat([x, torch.ones(200, 1)], dim=1) if biased else x
    dense = ones.T @ ones / 200
    assert isinstance(found.input_operator, Sketch)
    assert trace(found.input_operator) == pytest.approx(dense.trace().item(), rel=1e-12)
    missed = torch.linalg.eigvalsh(dense - matrix(found.input_operator))
    assert -1e-12 < missed.min().item() <= missed.max().item() <= found.input_operator.error + 1e-12
    assert shown.layers[0].moments.size == 20 + biased
    assert shown.layers[0].kfac.input_factor.sketch_error > 0


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kfac_approx", ["expand", "reduce"])
def test_kfac_factors_of_a_vocabulary_are_the_dense_ones(kfac_approx: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, (x, y) = Speller(True), batch(3)
    options = {"likelihood": Categorical(1), "fisher_type": "empirical", "kfac_approx": kfac_approx}
    wanted = kfac_factors(model, x, y, **options)
    monkeypatch.setattr(Curvature, "room", Room(8 * (WORDS - 1) ** 2))
    found = kfac_factors(model, x, y, **options)
    for name, factors in wanted.items():
        torch.testing.assert_close(found[name].input_factor, factors.input_factor, rtol=1e-10, atol=1e-13)
        torch.testing.assert_close(found[name].gradient_factor, factors.gradient_factor, rtol=1e-10, atol=1e-13)


def test_a_table_of_real_size_takes_the_memory_of_its_rows() -> None:
    """V = 50,000: a matrix of that side would take 20 GB, and more than the test has."""
    model = nn.Sequential(nn.Embedding(50_000, 4), nn.Linear(4, 50_000, bias=False))
    model[1].weight = model[0].weight
    x, y = torch.randint(0, 50_000, (3, 5)), torch.randint(0, 50_000, (3, 5))
    for statistic in ("batch", "per-example"):
        found = tensor_normal_factors(model, x, y, likelihood=Categorical(-1), statistic=statistic)
        assert [one.size for one in found["0.weight"].operators] == [50_000, 4]
    for approx in ("expand", "reduce"):
        factors = kfac_factors(model, x, y, likelihood=Categorical(-1), kfac_approx=approx)
        assert factors["1"].gradient_operator.size == 50_000
        with pytest.raises(MemoryBudgetError, match="50,000 rows"):
            _ = factors["1"].gradient_factor
    profile = curvlab.analyze(model, data=(x, y), loss="cross-entropy", analyses=("moments", "kfac", "tnt"))
    assert profile["1"].kfac.gradient_factor.size == profile["1"].tnt.modes[0].size == 50_000
    assert profile["1"].kfac.gradient_factor.condition_number is None
    assert profile["1"].tnt.modes[0].sketch_error is None
    assert profile.to_dict()["layers"][1]["kfac"]["gradient_factor"]["rank"] <= 15


class Overwriting(nn.Module):
    """Uses its input in a layer and adds to it in place."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(9, 9), nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = x * 1.0
        z = self.first(h)
        h += 100.0
        return self.last(z + h)


@pytest.mark.usefixtures("float64")
def test_rows_are_those_that_the_layer_saw_whatever_the_network_writes_there_later() -> None:
    x = torch.randn(4, 9)
    found = kfac_factors(Overwriting(), x, torch.zeros(4).long(), likelihood="categorical", fisher_type="forward-only")
    ones = torch.cat([x, torch.ones(4, 1)], dim=1)
    torch.testing.assert_close(found["first"].input_factor, ones.T @ ones / 4)


@pytest.mark.usefixtures("float64")
def test_few_rows_by_positions_are_the_contractions_of_the_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of D_n by a QR decomposition of the other side, and their products, in pieces of one example."""
    monkeypatch.setattr("curvlab.statistics.position_factors.CHUNK", 1)
    model = nn.Sequential(nn.Linear(4, 30), nn.Tanh(), nn.Linear(30, 3, bias=False))
    x, y = torch.randn(3, 2, 4), torch.randint(0, 3, (3, 2))
    recipe = TensorNormalCurvature("per-example", "empirical", keep_rows=True)
    assert len(recipe.profiled(survey(model, x))) == 3
    options = {"likelihood": Categorical(-1), "fisher_type": "empirical", "statistic": "per-example"}
    found = tensor_normal_factors(model, x, y, **options)
    wide = nn.Sequential(*model, nn.Identity())
    wanted = list(fisher_columns(nn.Sequential(*wide, Last()), x, y, "categorical", "empirical"))
    for name in ("0.weight", "2.weight"):
        operator = found[name].operator
        assert isinstance(operator, Kronecker)
        shape = tuple(dict(model.named_parameters())[name].shape)
        for mode, factor in enumerate(operator.factors):
            dense = contraction(wanted, name, shape, mode)
            scale = trace(factor) / dense.trace()
            torch.testing.assert_close(matrix(factor), dense * scale, rtol=1e-9, atol=1e-13)


class Last(nn.Module):
    """The classes after the examples, as the oracle has them."""

    def forward(self, z: Tensor) -> Tensor:
        return z.movedim(-1, 1)


@pytest.mark.usefixtures("float64")
def test_a_small_table_with_many_positions_forms_no_product_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative positions of T5: T² look-ups in 32 rows, whose Gram matrix would have T⁴ entries."""

    def refuse(side: object) -> Tensor:
        raise AssertionError("positions by positions")

    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(4, 3), nn.Flatten(), nn.Linear(300, 2))
    x, y = torch.randint(0, 4, (5, 100)), torch.randint(0, 2, (5,))
    columns = list(fisher_columns(model, x, y, "categorical", "empirical"))
    monkeypatch.setattr("curvlab.statistics.position_factors._gram", refuse)
    options = {"likelihood": "categorical", "fisher_type": "empirical", "statistic": "per-example"}
    found = tensor_normal_factors(model, x, y, **options)["0.weight"]
    wanted = [contraction(columns, "0.weight", (4, 3), mode) for mode in (0, 1)]
    c0 = (wanted[0].trace() / 12) ** 0.5
    for factor, dense, other in zip(found.factors, wanted, (3, 4), strict=True):
        torch.testing.assert_close(factor, dense / (c0 * other), rtol=1e-9, atol=1e-12)
