"""Evaluation: the mean over a whole part, and nothing changed by it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from curvlab.data.dataset import Dataset
from curvlab.problems.registry import problem
from curvlab.training.evaluation import evaluate


@pytest.fixture
def model():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(13, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))


DATA = Dataset("d", torch.randn(50, 13, generator=torch.Generator().manual_seed(1)), torch.arange(50) % 3, "d")


@pytest.mark.parametrize("size", [1, 7, 50, 1000])
def test_means_over_all_examples_however_they_are_split(model, size):
    found = evaluate(model, problem("wine-mlp"), DATA, size)
    model.eval()
    with torch.no_grad():
        z = model(DATA.x).double()
    assert found["loss"] == pytest.approx(nn.functional.cross_entropy(z, DATA.y).item(), rel=1e-6)
    assert found["accuracy"] == (z.argmax(1) == DATA.y).double().mean().item()


def test_modes_buffers_gradients_and_generators_are_left_alone(model):
    model.train()
    model[1].eval()
    buffers = {name: value.clone() for name, value in model.state_dict().items()}
    generator = torch.get_rng_state()

    class Drawing(nn.Module):
        def forward(self, x):
            return x + 0 * torch.rand_like(x)

    model.append(Drawing())
    evaluate(model, problem("wine-mlp"), DATA, 10)
    assert [module.training for module in model] == [True, False, True, True, True]
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(value, buffers[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_modes_are_restored_after_an_error(model):
    wrong = replace(DATA, x=DATA.x[:, :5])
    with pytest.raises(RuntimeError):
        evaluate(model, problem("wine-mlp"), wrong, 10)
    assert model.training


def test_a_share_of_examples_is_exact():
    """19 of 20 is not below 0.95."""
    model = nn.Linear(3, 3, bias=False)
    nn.init.eye_(model.weight)
    y = torch.arange(20) % 3
    x = nn.functional.one_hot(y, 3).float()
    data = Dataset("d", x, torch.cat([y[:19], (y[19:] + 1) % 3]), "d")
    assert evaluate(model, problem("wine-mlp"), data, 20)["accuracy"] == 0.95
