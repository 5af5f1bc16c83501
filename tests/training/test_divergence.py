"""Runs that diverge: what is said of them, and what they leave."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import load_file
from training_runs import trained

from curvlab.errors import NumericalError
from curvlab.problems.registry import problem
from curvlab.training.run import Run
from curvlab.training.run_folder import RunFolder
from curvlab.training.state_file import read_state


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"problem": "wine-mlp", "optimizer": "sgd", "settings": {"lr": 1e6}}, "training loss of step"),
        ({"problem": "diabetes-mlp", "optimizer": "sgd", "settings": {"lr": 1e30}}, "not finite"),
    ],
)
def test_divergence_is_told_and_everything_is_written(tmp_path, values, reason):
    result = trained(tmp_path, epochs=20, **values)
    assert result.status == "diverged"
    assert reason in result.reason
    assert result.steps < 20
    text = (tmp_path / "summary.json").read_text() + (tmp_path / "metrics.jsonl").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert read_state(RunFolder(tmp_path).state)["step"] < result.steps
    assert (tmp_path / "model.safetensors").exists()


def test_gradients_that_are_never_finite_are_divergence(tmp_path, monkeypatch):
    """√|0·w| is 0, and its derivative is not a number."""
    (tmp_path / "rootnet.py").write_text(
        "from torch import nn\n"
        "class Root(nn.Linear):\n"
        "    def forward(self, x):\n"
        "        return super().forward(x) + (0 * self.weight).abs().sqrt().sum()\n"
        "def build(): return Root(13, 3)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    values = {"architecture": "rootnet:build", "data": "wine", "batch_size": 26, "epochs": 20}
    result = trained(tmp_path / "r", optimizer="sgd", **values)
    assert (result.status, result.steps, result.skipped) == ("diverged", 10, 10)
    assert "10 steps in a row" in result.reason


def test_a_loss_that_only_an_evaluation_shows_is_divergence(tmp_path, monkeypatch):
    monkeypatch.setattr("curvlab.training.run.evaluate", lambda *_: {"loss": math.nan, "accuracy": 0.1})
    result = trained(tmp_path, optimizer="sgd", epochs=3)
    assert (result.status, result.steps) == ("diverged", 5)
    assert json.loads((tmp_path / "summary.json").read_text())["train"]["loss"] is None


def test_a_numerical_error_of_the_optimizer_is_divergence(tmp_path, monkeypatch):
    take = Run.take_step

    def failing(run, x, y):
        if run.step == 7:
            raise NumericalError("kfac: the inverse for 'fc1' failed 4 times")
        take(run, x, y)

    monkeypatch.setattr(Run, "take_step", failing)
    result = trained(tmp_path, optimizer="kfac", epochs=3)
    assert (result.status, result.steps, result.evaluated) == ("diverged", 7, 7)
    assert "'fc1' failed" in result.reason


def test_the_last_saved_model_is_kept(tmp_path):
    """Steps of 1e6 ruin the weights within the first epoch, so that those of the beginning are the last good ones."""
    result = trained(tmp_path, optimizer="sgd", settings={"lr": 1e6}, epochs=3)
    assert (result.status, result.model["step"]) == ("diverged", 0)
    saved = load_file(tmp_path / "model.safetensors")
    for name, value in problem("wine-mlp").build(0).state_dict().items():
        torch.testing.assert_close(saved[name], value, rtol=0, atol=0)


def test_a_last_evaluation_that_diverges_does_not_replace_the_saved_model(tmp_path, monkeypatch):
    from curvlab.training.evaluation import evaluate

    seen: list[None] = []

    def counted(*arguments):
        seen.append(None)
        found = evaluate(*arguments)
        return {**found, "loss": math.nan} if len(seen) > 2 else found

    trained(tmp_path / "good", optimizer="sgd", steps=5)
    monkeypatch.setattr("curvlab.training.run.evaluate", counted)
    result = trained(tmp_path / "bad", optimizer="sgd", steps=7)
    assert (result.status, result.evaluated, result.model["step"]) == ("diverged", 7, 5)
    model = (tmp_path / "bad" / "model.safetensors").read_bytes()
    assert model == (tmp_path / "good" / "model.safetensors").read_bytes()
    assert read_state(RunFolder(tmp_path / "bad").state)["step"] == 5


def test_one_step_that_explodes_shows_in_the_evaluation(tmp_path):
    result = trained(tmp_path, optimizer="sgd", settings={"lr": 1e6}, batch_size=130, epochs=1)
    assert (result.status, result.steps, result.model["step"]) == ("diverged", 1, 0)
    assert "the loss on the training set was" in result.reason
