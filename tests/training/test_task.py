"""Networks of one's own as problems: likelihood, metrics, held-out part; and what does not fit."""

from __future__ import annotations

import pytest
import torch
from training_runs import trained

import curvlab
from curvlab.errors import CurvlabError, DataError
from curvlab.training.own_network import binary_accuracy
from curvlab.training.settings import TrainingSettings
from curvlab.training.task import task

NETWORKS = """
import torch
from torch import nn

def classifier(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
def autoencoder(): return nn.Sequential(nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 64))
def binary(): return nn.Linear(30, 1)
def regression(): return nn.Linear(10, 1)
def coloured(): return nn.Conv2d(3, 8, 3)
def three(): return nn.Linear(10, 3)
def broken(): raise RuntimeError("out of order")

class Pair(nn.Linear):
    def forward(self, x):
        return "no tensor at all"

def pair(): return Pair(13, 3)

class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(13, 3)

    def forward(self, x):
        return self.fc(x)
"""


@pytest.fixture
def made(tmp_path, monkeypatch):
    (tmp_path / "mynetworks.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(tmp_path)

    def make(name, data, **values):
        return task(TrainingSettings("sgd", architecture=f"mynetworks:{name}", data=data, **values))

    return make


@pytest.mark.parametrize(
    ("name", "data", "loss", "likelihood", "targets", "metric"),
    [
        ("classifier", "digits", "auto", "categorical", "labels", "accuracy"),
        ("autoencoder", "digits", "bce", "bernoulli", "inputs", "reconstruction_error"),
        ("autoencoder", "digits", "mse", "gaussian", "inputs", "squared_error"),
        ("binary", "breast-cancer", "auto", "bernoulli", "values", "accuracy"),
        ("regression", "diabetes", "auto", "gaussian", "values", "squared_error"),
    ],
)
def test_likelihood_targets_and_metrics(made, name, data, loss, likelihood, targets, metric):
    found = made(name, data, loss=loss)
    problem = found.problem
    assert (problem.likelihood, problem.targets, list(problem.metrics)) == (likelihood, targets, [metric])
    assert found.data == data
    share = len(found.split.test) / (len(found.split.test) + len(found.split.train))
    assert share == pytest.approx(0.2, abs=0.01)
    assert found.architecture is None
    assert any(note.startswith("loss: ") for note in found.notes) is (loss == "auto")


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("coloured", "digits", "the network cannot take digits.*1x8x8"),
        ("three", "diabetes", r"do not fit outputs of shape \(2, 3\)"),
        ("broken", "wine", "out of order"),
        ("pair", "wine", "the model returned a str"),
        ("absent", "wine", "has no 'absent'"),
        ("classifier", "nothing.npz", "no dataset or file 'nothing.npz'"),
        ("classifier", "gaussian:64", "no targets"),
    ],
)
def test_what_does_not_fit_is_one_sentence(made, name, data, sentence):
    with pytest.raises(CurvlabError, match=sentence) as error:
        made(name, data)
    assert "\n" not in str(error.value)


def test_a_target_that_the_networks_metrics_do_not_have_is_refused_before_the_run(made, tmp_path):
    values = {"architecture": "mynetworks:regression", "data": "diabetes", "target": "test.accuracy>0.9"}
    with pytest.raises(CurvlabError, match=r"no 'accuracy', but loss, squared_error"):
        trained(tmp_path / "r", optimizer="sgd", **values)
    assert not (tmp_path / "r").exists()


def test_weights_follow_the_seed(made):
    weights = [made("binary", "breast-cancer", seed=seed).problem.build(seed).weight for seed in (1, 1, 2)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_network_that_cannot_be_described_is_recorded_by_its_code(made, tmp_path):
    result = trained(tmp_path / "r", optimizer="kfac", epochs=1, architecture="mynetworks:Mine", data="wine")
    assert result.model["self_contained"] is False
    loaded = curvlab.load(str(tmp_path / "r" / "model.safetensors"), trust=True)
    assert type(loaded.module).__name__ == "Mine"


def test_other_data_for_a_problem(tmp_path):
    iris = {"problem": "wine-mlp", "data": "iris"}
    with pytest.raises(DataError, match="'wine-mlp' takes 13"):
        trained(tmp_path / "r", optimizer="sgd", epochs=1, **iris)
    torch.save({"x": torch.randn(200, 13), "y": torch.arange(200) % 3}, tmp_path / "d.pt")
    result = trained(tmp_path / "r", optimizer="sgd", epochs=1, data=str(tmp_path / "d.pt"))
    assert (result.problem["train_examples"], result.model["data"]) == (152, None)


def test_binary_accuracy():
    z, y = torch.tensor([[1.0], [-1.0], [2.0], [0.5]]), torch.tensor([[1.0], [0.0], [0.0], [1.0]])
    assert binary_accuracy(z, y) == 0.75
