"""Factor files: what is read is what `curvlab.curvature` says of the same data, and a file continues an analysis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from cases import CASES, Case
from oracles import fisher_columns
from safetensors.torch import load_file
from test_masked_positions import padded
from torch import Tensor, nn

import curvlab
from curvlab.curvature import feature_moments, kfac_factors
from curvlab.errors import CheckpointError, CommandError, CurvlabError
from curvlab.operators.spectrum import spectrum

__all__ = ["padded"]  # the fixture
pytestmark = pytest.mark.usefixtures("float64")
SAME = 1e-12
SMALLEST = 1e-6  # the least eigenvalue is known to eps times the condition number, up to 1e8 here
LOSSES = {"categorical": "cross-entropy", "bernoulli": "bce", "gaussian": "mse"}


def close(mine: Tensor | None, wanted: Tensor, tolerance: float = SAME) -> None:
    assert mine is not None
    assert mine.shape == wanted.shape
    error, scale = (mine - wanted).abs().max().item(), wanted.abs().max().item()
    assert error <= tolerance * max(scale, 1e-12), f"{error:.3g} of {scale:.3g}"


def kept(model: nn.Module, data: Any, path: Path, **options: Any) -> tuple[curvlab.Analysis, Any]:
    analysis = curvlab.analyze(
        model, data, factors=str(path), **{"dtype": "float64", "fisher_type": "empirical", **options}
    )
    return analysis, curvlab.load_factors(path)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
@pytest.mark.parametrize("kfac_approx", ["expand", "reduce"])
def test_it_holds_what_the_functions_say(case: Case, kfac_approx: str, tmp_path: Path) -> None:
    model, x, y = case.build()
    options: Any = {"fisher_type": "empirical", "kfac_approx": kfac_approx}
    _, factors = kept(model, (x, y), tmp_path / "f.safetensors", loss=LOSSES[case.likelihood], **options)
    wanted = kfac_factors(model, x, y, likelihood=case.likelihood, **options)
    moments = feature_moments(model, x)
    assert list(factors) == list(wanted)
    for name, layer in factors.items():
        assert layer.count == moments[name].count
        close(layer.mean, moments[name].mean)
        close(layer.second_moment, moments[name].second_moment)
        close(layer.input_factor, wanted[name].input_factor)
        close(layer.gradient_factor, wanted[name].gradient_factor)
        assert spectrum(layer.operator).trace == pytest.approx(spectrum(wanted[name].operator).trace, rel=SAME)
    (column,) = fisher_columns(model, x, y, case.likelihood, "empirical")
    assert set(factors.fisher_diagonal) == {name for name, _ in model.named_parameters()}
    for name, values in factors.fisher_diagonal.items():
        close(values, column[name].square().mean(0), 1e-10)


def test_padding_does_not_count(padded: Any, tmp_path: Path) -> None:
    model, inputs, labels = padded
    _, factors = kept(model, [(inputs, labels)], tmp_path / "f.safetensors", loss="cross-entropy")
    wanted = kfac_factors(model, inputs, labels, likelihood="categorical", fisher_type="empirical")
    for name, layer in factors.items():
        assert layer.count == int(inputs["attention_mask"].sum())
        close(layer.input_factor, wanted[name].input_factor)
        close(layer.gradient_factor, wanted[name].gradient_factor)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(30, 20), nn.Tanh(), nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 3))


def data(examples: int) -> tuple[Tensor, Tensor]:
    return torch.randn(examples, 30), torch.randint(0, 3, (examples,))


@pytest.mark.parametrize("examples", [9, 25, 60], ids=["rows", "some rows", "matrices"])
@pytest.mark.parametrize("kfac_approx", ["expand", "reduce"])
def test_an_analysis_continues_from_a_file(examples: int, kfac_approx: str, tmp_path: Path) -> None:
    model, path = network(), tmp_path / "model.safetensors"
    curvlab.save(path, model)
    made, factors = kept(
        path, data(examples), tmp_path / "f", loss="cross-entropy", fisher_type="type-2", kfac_approx=kfac_approx
    )
    assert any(name.endswith("_rows") for layer in factors.values() for name in layer.tensors) == (examples < 30)
    found = curvlab.analyze(path, factors_from=str(tmp_path / "f"))
    assert found.settings["fisher_type"] == "type-2"
    assert found.settings["kfac_approx"] == kfac_approx
    assert found.settings["likelihood"] == "categorical"
    assert found.data == made.data
    assert found.coverage.analyzed == found.coverage.parameters
    for before, after in zip(made.layers, found.layers, strict=True):
        assert (before.name, before.kind, before.shape) == (after.name, after.kind, after.shape)
        assert before.weights == after.weights
        for number, wanted in vars(before.moments.condition_number_nonzero).items():
            assert getattr(after.moments.condition_number_nonzero, number) == pytest.approx(wanted, rel=SMALLEST)
        assert after.moments.eigenvalues["quantiles"] == pytest.approx(before.moments.eigenvalues["quantiles"])
        for field in ("input_factor", "gradient_factor", "kronecker"):
            one, other = getattr(before.kfac, field), getattr(after.kfac, field)
            assert (other.trace, other.max) == pytest.approx((one.trace, one.max), rel=SAME)
            assert other.rank == one.rank
            assert other.condition_number_nonzero == pytest.approx(one.condition_number_nonzero, rel=SMALLEST)
        assert before.tnt is not None
        assert after.tnt is None


def test_a_file_of_weights_alone_continues_too(tmp_path: Path) -> None:
    """The factors are read without a network: names and shapes of the parameters are enough."""
    model, path = network(), tmp_path / "model.safetensors"
    curvlab.save(path, model, architecture="not.here:build")
    assert curvlab.load(path).module is None
    made, _ = kept(model, data(40), tmp_path / "f", loss="cross-entropy")
    found = curvlab.analyze(path, factors_from=str(tmp_path / "f"), analyses=("kfac",))
    for layer in made.layers:
        assert found[layer.name].kfac.kronecker.max == pytest.approx(layer.kfac.kronecker.max, rel=SAME)


def test_forward_only_has_no_gradients(tmp_path: Path) -> None:
    _, factors = kept(network(), data(40), tmp_path / "f", loss="cross-entropy", fisher_type="forward-only")
    assert dict(factors.fisher_diagonal) == {}
    close(factors["2"].gradient_factor, torch.eye(20))
    curvlab.analyze(network(), factors_from=str(tmp_path / "f"), analyses=("kfac",))


def test_what_is_loaded_is_written_again(tmp_path: Path) -> None:
    kept(network(), data(9), tmp_path / "f", loss="cross-entropy")
    curvlab.save_factors(curvlab.load_factors(tmp_path / "f"), tmp_path / "g")
    assert (tmp_path / "f").read_bytes() == (tmp_path / "g").read_bytes()
    assert set(load_file(tmp_path / "g")) > {"mean:0", "second_moment_rows:0", "fisher_diagonal:0.weight"}


def test_an_analysis_is_written_by_hand(tmp_path: Path) -> None:
    made = curvlab.analyze(network(), data(9), analyses=("factors",), loss="cross-entropy")
    assert made["0"].factors.second_moment == "rows"
    assert "_kept" not in str(made.to_dict())
    curvlab.save_factors(made, tmp_path / "f")
    assert list(curvlab.load_factors(tmp_path / "f")) == ["0", "2", "4"]
    with pytest.raises(CurvlabError, match="has kept no factors"):
        curvlab.save_factors(curvlab.analyze(network(), data(9), analyses=("moments",)), tmp_path / "f")


@pytest.mark.parametrize("examples", [9, 60])
def test_eigenbases_put_the_factors_together_again(examples: int, tmp_path: Path) -> None:
    _, factors = kept(network(), data(examples), tmp_path / "f", loss="cross-entropy", eigenbases=True)
    for layer in factors.values():
        for side, matrix in (("input", layer.input_factor), ("gradient", layer.gradient_factor)):
            values, vectors = layer.eigenbasis(side)
            close(vectors * values @ vectors.mT, matrix, 1e-12)
            close(vectors.mT @ vectors, torch.eye(len(values)), 1e-12)


def test_analyses_that_are_named_are_done_beside_it(tmp_path: Path) -> None:
    made, factors = kept(network(), data(40), tmp_path / "f", loss="cross-entropy", analyses=("moments",))
    assert set(made.layers[0].results) == {"moments", "factors"}
    assert list(factors) == ["0", "2", "4"]


def test_a_model_that_the_factors_are_not_of_is_refused(tmp_path: Path) -> None:
    kept(network(), data(40), tmp_path / "f", loss="cross-entropy")
    narrow = nn.Sequential(nn.Linear(30, 20), nn.Tanh(), nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 2))
    with pytest.raises(CheckpointError, match=r"'4.weight' of shape \(3, 20\).*the model has one of shape \(2, 20\)"):
        curvlab.analyze(narrow, factors_from=str(tmp_path / "f"))
    with pytest.raises(CheckpointError, match="no such parameter"):
        curvlab.analyze(nn.Sequential(nn.Linear(30, 20)), factors_from=str(tmp_path / "f"))
    for name in ("one", "other"):
        curvlab.save(tmp_path / name, network())
    kept(tmp_path / "one", data(40), tmp_path / "f", loss="cross-entropy")
    with pytest.raises(CheckpointError, match="of another model file: its sha256"):
        curvlab.analyze(tmp_path / "other", factors_from=str(tmp_path / "f"))


def test_options_that_say_nothing_are_refused(tmp_path: Path) -> None:
    model, path = network(), str(tmp_path / "f")
    kept(model, data(40), tmp_path / "f", loss="cross-entropy")
    for options, words in (
        ({"data": data(4)}, "take the place of data"),
        ({"fisher_type": "type-2"}, "fisher_type is about the pass over the data"),
        ({"factors": path}, "leave out one of them"),
        ({"analyses": ("tnt",)}, "'tnt' cannot be continued .* factor files do not hold tensor-normal"),
    ):
        with pytest.raises(CurvlabError, match=words):
            curvlab.analyze(model, factors_from=path, **options)
    with pytest.raises(CommandError, match="eigenbases has an effect on factors only"):
        curvlab.analyze(model, data(4), eigenbases=True)
    with pytest.raises(CommandError, match="a file in a folder that exists"):
        curvlab.analyze(model, data(4), factors=str(tmp_path / "no" / "f"))
    with pytest.raises(CurvlabError, match="'factors' needs data"):
        curvlab.analyze(model, factors=path)


def test_a_layer_whose_numbers_are_none_is_left_out(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    with torch.no_grad():
        model[0].weight.fill_(torch.nan)
    x = torch.randn(5, 3)
    made, factors = kept(model, (x, x), tmp_path / "f", loss="mse", fisher_type="forward-only")
    assert list(factors) == ["0"]
    assert [line.status for line in made.coverage.blocks] == ["analyzed", "weights-only"]
