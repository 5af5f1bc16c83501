"""Every optimizer that needs gradients alone takes `params` as torch.optim does, or a model; no other does."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from curvlab.curvatures.shampoo import ShampooCurvature
from curvlab.errors import CurvlabError
from curvlab.optim import OPTIMIZERS
from curvlab.optim.core import Optimizer
from curvlab.optim.from_curvature import optimizer_of
from tests.optim_rows import ROWS, Row

ALONE = [row for row in ROWS if OPTIMIZERS[row.name].takes_parameters]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(2, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(16, 5), nn.Tanh(), nn.Linear(5, 3)
    ).double()


def train(model: nn.Module, optimizer: Any) -> list[float]:
    """The losses before each of eight steps, taken as torch's examples take them."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(30, 2, 6, generator=generator, dtype=torch.float64)
    y = x[:, 0, :3].argmax(1)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def groups(model: nn.Module, lr: float) -> list[dict[str, Any]]:
    first, second, *rest = model.parameters()
    return [{"params": [first, second], "lr": 0.0}, {"params": iter(rest), "lr": lr}]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_they_are_those_that_need_no_closure(name: str) -> None:
    kind = OPTIMIZERS[name]
    optimizer = next(row for row in ROWS if row.name == name).make(network())
    assert kind.takes_parameters is not optimizer.needs_closure
    if kind.takes_parameters:
        return
    with pytest.raises(CurvlabError, match="give the network itself"):
        kind(network().parameters())  # type: ignore[call-arg, arg-type]


@pytest.mark.parametrize("row", ALONE, ids=lambda row: row.label)
def test_named_parameters_are_as_good_as_their_model(row: Row) -> None:
    model, twin = network(), network()
    alone, whole = row.make(model.named_parameters()), row.make(twin)  # type: ignore[arg-type]
    losses, others = train(model, alone), train(twin, whole)
    if row.name == "muon":  # which cannot tell the last layer without its model
        assert losses[0] == others[0]
        assert losses[-1] < losses[0]
        return
    assert losses == pytest.approx(others, rel=1e-12)
    assert alone.state_dict().keys() == whole.state_dict().keys()
    assert alone.state_dict()["state"].keys() == whole.state_dict()["state"].keys()


@pytest.mark.parametrize("row", ALONE, ids=lambda row: row.label)
def test_tensors_and_groups_of_them_are_trained(row: Row) -> None:
    model = network()
    losses = train(model, row.make(model.parameters()))  # type: ignore[arg-type]
    assert losses[-1] < losses[0]
    model = network()
    before = [p.clone() for p in model.parameters()]
    optimizer = row.make(groups(model, row.settings["lr"]))  # type: ignore[arg-type]
    losses = train(model, optimizer)
    moved = [not torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True)]
    assert moved == [False, False, True, True, True, True]
    assert losses[-1] < losses[0]
    state = copy.deepcopy(optimizer.state_dict())
    again = row.make(groups(network(), row.settings["lr"]))  # type: ignore[arg-type]
    again.load_state_dict(state)
    assert again.steps == 8


@pytest.mark.parametrize("row", ALONE, ids=lambda row: row.label)
def test_a_loss_without_a_network_is_minimised_by_closures(row: Row) -> None:
    """‖w − 1‖²: a closure that runs no model is one example."""
    w: Tensor = torch.zeros(3, 2, dtype=torch.float64, requires_grad=True)
    optimizer = row.make([w])  # type: ignore[arg-type]
    losses = [float(optimizer.step(lambda: (w - 1).square().sum())) for _ in range(8)]  # type: ignore[arg-type]
    assert losses[-1] < losses[0]


def test_the_optimizer_of_a_gradients_curvature_takes_them_too() -> None:
    kind: Any = optimizer_of(ShampooCurvature)
    assert issubclass(kind, Optimizer)
    assert kind.takes_parameters
    model = network()
    losses = train(model, kind(model.parameters(), lr=0.02))
    assert losses[-1] < losses[0]
