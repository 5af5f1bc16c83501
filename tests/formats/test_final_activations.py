"""A softmax or sigmoid at the end of a network: likelihoods take logits, so it is left off or the user is told."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from formats.onnx.models import weight, written
from torch import Tensor, nn

import curvlab
from curvlab.analyses.likelihood_choice import applied_activation, choose_likelihood
from curvlab.formats.load import load
from curvlab.likelihoods import likelihood

WEIGHTS = {"fc.weight": weight(3, 4), "fc.bias": weight(3, seed=1)}
LINEAR = "Gemm<transB = 1>(x, fc__weight, fc__bias)"
TWICE = "the outputs look like probabilities, and likelihoods take logits"


def data(loss: str) -> tuple[Tensor, Tensor]:
    targets = torch.arange(20) % 3 if loss == "cross-entropy" else torch.rand(20, 3).round()
    return weight(20, 4, seed=2), targets


def analyzed(model: Any, loss: str) -> Any:
    x, y = data(loss)
    return curvlab.analyze(model, (x, y), loss=loss, analyses=("moments", "kfac"))


def layer() -> nn.Linear:
    module = nn.Linear(4, 3)
    module.load_state_dict({name.removeprefix("fc."): tensor for name, tensor in WEIGHTS.items()})
    return module


@pytest.mark.parametrize(("loss", "end"), [("cross-entropy", "Softmax"), ("bce", "Sigmoid")])
def test_an_onnx_graph_is_profiled_by_its_logits(tmp_path: Path, loss: str, end: str) -> None:
    """Its curvature is that of the same layer without the activation."""
    graph = f"g (float[N,4] x) => (float[N,3] y) {{ z = {LINEAR} y = {end}(z) }}"
    checkpoint = load(written(tmp_path / "model.onnx", graph, WEIGHTS, y="last"))
    assert checkpoint.module is not None
    x, _ = data(loss)
    before = copy.deepcopy(checkpoint.module)(x)
    found, wanted = analyzed(checkpoint, loss), analyzed(layer(), loss)
    said = f"the {end.lower()} at the end of the network ('last') is left off: its outputs are logits"
    assert said in found.notes
    assert not any(TWICE in note for note in found.notes)
    assert found.layers[0].kfac.kronecker.max == pytest.approx(wanted.layers[0].kfac.kronecker.max, rel=1e-5)
    torch.testing.assert_close(checkpoint.module(x), before, rtol=0, atol=0)  # the user's own network stays whole


def test_a_sigmoid_stays_where_the_loss_takes_any_number(tmp_path: Path) -> None:
    graph = f"g (float[N,4] x) => (float[N,3] y) {{ z = {LINEAR} y = Sigmoid(z) }}"
    path = written(tmp_path / "model.onnx", graph, WEIGHTS)
    found, wanted = analyzed(load(path), "mse"), analyzed(nn.Sequential(layer(), nn.Sigmoid()), "mse")
    assert not any("left off" in note or TWICE in note for note in found.notes)
    assert found.layers[0].kfac.kronecker.max == pytest.approx(wanted.layers[0].kfac.kronecker.max, rel=1e-5)


@pytest.mark.parametrize(
    "graph",
    [
        f"g (float[N,4] x) => (float[N,3] y, float[N,3] z) {{ z = {LINEAR} y = Softmax(z) }}",
        f"g (float[N,4] x) => (float[N,3] y) {{ z = {LINEAR} p = Softmax(z) y = Reshape(p, same) }}",
    ],
    ids=["two outputs", "behind the softmax"],
)
def test_a_softmax_that_is_not_the_end_is_said(tmp_path: Path, graph: str) -> None:
    constants = WEIGHTS | {"same": torch.tensor([-1, 3])}
    path = written(tmp_path / "model.onnx", graph, {k: v for k, v in constants.items() if k != "same" or k in graph})
    notes = analyzed(load(path), "cross-entropy").notes
    assert any(f"{TWICE}: cross-entropy of them would apply softmax twice" in note for note in notes)
    assert not any("left off" in note for note in notes)


@pytest.mark.parametrize(("loss", "end"), [("cross-entropy", nn.Softmax(1)), ("bce", nn.Sigmoid())])
def test_a_network_in_memory_is_not_changed_and_the_user_told(loss: str, end: nn.Module) -> None:
    notes = analyzed(nn.Sequential(layer(), end), loss).notes
    name = type(end).__name__.lower()
    assert any(f"{loss} of them would apply {name} twice; leave the {name} out of the network" in n for n in notes)


def test_a_torchscript_network_with_a_softmax_is_said(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(nn.Sequential(layer(), nn.Softmax(1)).eval(), torch.ones(2, 4))
        torch.jit.save(traced, tmp_path / "m.pt")
    assert any(TWICE in note for note in analyzed(load(tmp_path / "m.pt", trust=True), "cross-entropy").notes)


def test_only_values_of_a_softmax_or_sigmoid_are_taken_for_them() -> None:
    z = weight(6, 3, 5, seed=4)
    classes, independent = likelihood("cross-entropy"), likelihood("bce")
    assert applied_activation(classes, z.softmax(1)) == "Softmax"
    assert applied_activation(independent, z.sigmoid()) == "Sigmoid"
    for logits in (z, z.log_softmax(1), z.softmax(-1), z.softmax(1) * 1.001, z.sigmoid(), z.softmax(1) - 0.01):
        assert applied_activation(classes, logits) is None
    for logits in (z, (z > 0).float(), z.sigmoid() * 2, z.relu()):
        assert applied_activation(independent, logits) is None
    assert applied_activation(likelihood("mse"), z.sigmoid()) is None


def test_a_guessed_loss_and_the_doubt_are_one_note() -> None:
    _, note = choose_likelihood("auto", None, weight(6, 3).softmax(1), None)
    assert note is not None
    assert note.startswith("loss: cross-entropy is assumed")
    assert TWICE in note
