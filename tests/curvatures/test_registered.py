"""A registered recipe: its optimizer's direction and its analysis's spectrum against dense autodiff."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import curvlab
from curvlab.analyses.registry import ANALYSES
from curvlab.curvatures.registry import CURVATURES
from curvlab.gates import parse
from curvlab.optim import OPTIMIZERS, create

pytestmark = pytest.mark.usefixtures("float64")
PACKAGE = Path(__file__).parents[1] / "example_package"


@pytest.fixture(autouse=True)
def diagonal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example package's curvature, registered while a test runs."""
    monkeypatch.syspath_prepend(str(PACKAGE))
    len(OPTIMIZERS), len(ANALYSES)  # both rooms follow the curvatures from now on
    importlib.import_module("curvlab_example.diagonal")
    yield
    for registry in (CURVATURES, OPTIMIZERS, ANALYSES):
        registry.forget("diagonal")
    sys.modules.pop("curvlab_example.diagonal")


def network() -> tuple[nn.Sequential, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    return model, torch.randn(30, 4), torch.randint(0, 2, (30,))


def squares(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """E[g²] of every parameter, example by example."""
    names, total = [name for name, _ in model.named_parameters()], dict[str, Tensor]()
    for n in range(len(x)):
        gradients = torch.autograd.grad(F.cross_entropy(model(x[n : n + 1]), y[n : n + 1]), list(model.parameters()))
        for name, g in zip(names, gradients, strict=True):
            total[name] = total.get(name, torch.zeros_like(g)) + g.square() / len(x)
    return total


def test_its_optimizer_solves_with_its_damped_operator() -> None:
    model, x, y = network()
    optimizer = create("diagonal", model, likelihood="categorical", fisher_type="empirical", lr=0.0, damping=0.1)
    optimizer.step(lambda: F.cross_entropy(model(x), y))
    gradients = dict(
        zip(
            squares(model, x, y),
            torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters())),
            strict=True,
        )
    )
    found = optimizer.direction(gradients)
    for name, square in squares(model, x, y).items():
        torch.testing.assert_close(found[name], gradients[name] / (square + 0.1))


def test_its_analysis_shows_the_spectrum_of_its_operator() -> None:
    model, x, y = network()
    options = {"fisher_type": "empirical", "dtype": "float64", "loss": "cross-entropy", "batch_size": 7}
    found = curvlab.analyze(model, data=(x, y), analyses=("diagonal", "block-fisher"), **options)
    dense = curvlab.curvature.block_fisher(model, x, y, likelihood="categorical", fisher_type="empirical")
    exact = squares(model, x, y)
    for layer in ("0", "2"):
        values = torch.cat([exact[f"{layer}.weight"].flatten(), exact[f"{layer}.bias"].flatten()])
        block, whole = found[layer].diagonal.block, found[layer].results["block-fisher"].block
        assert (block.size, block.max) == (len(values), pytest.approx(values.max().item(), rel=1e-10))
        assert block.trace == pytest.approx(values.sum().item(), rel=1e-10)
        assert block.stderr["trace"] is not None
        assert whole.max == pytest.approx(torch.linalg.eigvalsh(dense[layer]).max().item(), rel=1e-10)
        assert whole.trace == pytest.approx(block.trace, rel=1e-10)


def test_a_block_that_does_not_fit_is_a_line_of_the_coverage(empty_process: None) -> None:
    model, x, y = network()
    own = (
        8 * 8**2
    )  # of 8 parameters: two halves, their averages, sum and average of both, two for the spectrum, and a margin
    found = curvlab.analyze(model, data=(x, y), analyses=("block-fisher",), max_memory=9 * own)
    assert found["0"].results.get("block-fisher") is None
    assert found["2"].results.get("block-fisher") is not None
    assert any("block-fisher would take" in (block.reason or "") for block in found.coverage.blocks)


def test_a_layer_without_a_block_is_told_apart_from_one_without_a_gradient() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    x, y = torch.randn(30, 4), torch.randint(0, 2, (30,))
    found = curvlab.analyze(model, data=(x, y), analyses=("diagonal", "kfac"), loss="cross-entropy")
    reasons = {block.name: block.reason for block in found.coverage.blocks}
    assert reasons == {"0": None, "1": "diagonal has no block of it", "2": None}
    assert found["1"].kfac is not None


def test_an_analysis_with_a_hyphen_in_its_name_has_gates() -> None:
    model, x, y = network()
    document = curvlab.analyze(model, data=(x, y), analyses=("block-fisher",), loss="cross-entropy").to_dict()
    assert parse('any."block-fisher".block.trace > 0').check(document).holds
    assert parse('"0"."block-fisher".block.size == 15').check(document).holds
