"""What torch.optim.Optimizer promises beside steps: hooks around states, pickles, spectral norm's own iterations."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from optim_rows import ROWS, Row
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from curvlab.optim.core import Optimizer

pytestmark = pytest.mark.usefixtures("float64")
each = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.label)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def data() -> tuple[Tensor, Tensor]:
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    return x, (x @ torch.arange(12.0).reshape(4, 3).sin()).argmax(1)


def run(optimizer: Any, model: nn.Module, steps: int) -> None:
    x, y = data()
    for _ in range(steps):
        optimizer.step(lambda: F.cross_entropy(model(x), y))


@each
def test_hooks_around_a_state_run_once_and_see_all_of_it(row: Row) -> None:
    """As torch.optim.SGD calls them, with what they may return in place of the state."""
    model = network()
    optimizer = row.make(model)
    run(optimizer, model, 2)
    keys, said = set(optimizer.state_dict()), []

    def after(_: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        said.append(("after saving", set(state) == keys))
        return {**state, "note": 1}

    def before_loading(_: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        said.append(("before loading", state.pop("note", None)))
        return {**state, "steps": 5}

    optimizer.register_state_dict_pre_hook(lambda _: said.append(("before saving", optimizer.steps)))
    optimizer.register_state_dict_post_hook(after)
    optimizer.register_load_state_dict_pre_hook(before_loading)
    optimizer.register_load_state_dict_post_hook(lambda _: said.append(("after loading", optimizer.steps)))
    state = optimizer.state_dict()
    assert said == [("before saving", 2), ("after saving", True)]
    said.clear()
    optimizer.load_state_dict(state)
    assert said == [("before loading", 1), ("after loading", 5)]
    assert state["note"] == 1  # what the caller has stays as it is


@each
def test_a_pickled_optimizer_goes_on(row: Row) -> None:
    """With its model, as torch's own has its parameters."""
    model = network()
    optimizer = row.make(model, groups=[{"params": (name for name in ["0.weight"]), "lr": row.settings["lr"] / 2}])
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    run(optimizer, model, 3)
    scheduler.step()
    saved = pickle.dumps((model, optimizer))
    run(optimizer, model, 2)
    twin, again = pickle.loads(saved)
    assert again.model is twin
    assert again.param_groups[1]["lr"] == row.settings["lr"] * 0.5
    run(again, twin, 2)
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-11)


# torch cannot differentiate the iteration itself forwards, which mvp needs: a sentence says so.
@pytest.mark.parametrize("row", [row for row in ROWS if row.variant != "mvp-adapted"], ids=lambda row: row.label)
@pytest.mark.parametrize("kind", ["hooks", "parametrization"])
def test_spectral_norm_iterates_as_often_as_the_closures_run_the_model(row: Row, kind: str) -> None:
    """Its power iteration moves at every forward in training mode: a step has one, as with torch.optim."""
    norm = nn.utils.spectral_norm if kind == "hooks" else parametrizations.spectral_norm
    torch.manual_seed(0)
    model = nn.Sequential(norm(nn.Linear(4, 6)), nn.Tanh(), nn.Linear(6, 3))
    twin = copy.deepcopy(model)
    optimizer = row.make(model, lr=0.0)
    other = torch.optim.SGD(twin.parameters(), lr=0.0)
    x, y = data()
    for _ in range(2):
        optimizer.step(lambda: F.cross_entropy(model(x), y))
        other.zero_grad()
        F.cross_entropy(twin(x), y).backward()
        other.step()
    for (name, mine), theirs in zip(model.named_buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-13, msg=name)
