"""Directions and races on a network and data of one's own; and what has no effect on what is compared is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from race_runs import in_this_process
from torch import Tensor, nn

import curvlab
from curvlab.errors import CommandError, CurvlabError

MODULE = """
from torch import nn


def build():
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
"""


def data() -> tuple[Tensor, Tensor]:
    x = torch.randn(90, 5, generator=torch.Generator().manual_seed(0))
    return x, (x @ torch.arange(15.0).reshape(5, 3).sin()).argmax(1)


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module and examples, and nothing that curvlab has a name for."""
    (tmp_path / "own_net_of_a_test.py").write_text(MODULE)
    x, y = data()
    torch.save({"x": x, "y": y}, tmp_path / "mine.pt")
    monkeypatch.chdir(tmp_path)
    return tmp_path


OWN = {"architecture": "own_net_of_a_test:build", "data": "mine.pt"}


@pytest.mark.usefixtures("mine")
def test_a_race_on_an_architecture_is_on_that_network_and_its_data(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = curvlab.compare(optimizers=["sgd"], mode="training", steps=12, seeds=(0,), **OWN).training
    assert alone is not None
    (apart,) = alone.races[0].entrants["sgd"].runs
    assert apart.peak_memory is not None  # in a process of its own
    in_this_process(monkeypatch)
    found = curvlab.compare(optimizers=["sgd", "kfac"], mode="training", steps=12, seeds=(0, 1), **OWN)
    assert found.training is not None
    (race,) = found.training.races
    assert race.problem == "own_net_of_a_test:build"
    assert (race.conditions["train_examples"], race.conditions["test_examples"]) == (72, 18)
    assert "mine.pt" in race.conditions["data"]
    here = race.entrants["sgd"].runs[0]
    assert (apart.hashes, apart.loss) == (here.hashes, here.loss)
    for entrant in race.entrants.values():
        assert [run.failed for run in entrant.runs] == [None, None]
        first, second = (run.hashes["initial_weights"] for run in entrant.runs if run.hashes)
        assert first != second  # every seed draws its own
        assert entrant.runs[0].loss[-1] < entrant.runs[0].loss[0]  # type: ignore[operator]


@pytest.mark.usefixtures("mine")
def test_directions_along_the_trajectory_of_an_architecture() -> None:
    found = curvlab.compare(optimizers=["sgd", "kfac"], steps=2, **OWN)
    assert (found.problem, found.steps) == ("own_net_of_a_test:build", 2)
    assert found["kfac"].layers == ("0", "2")
    assert found.data["samples"] == 72


def test_a_race_of_a_network_in_memory_begins_with_its_weights() -> None:
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    before = [p.detach().clone() for p in model.parameters()]
    found = curvlab.compare(model, ["sgd", "adam"], mode="training", steps=12, data=data())
    assert found.training is not None
    (race,) = found.training.races
    x, y = data()
    at_start = nn.functional.cross_entropy(model(x), y).item()
    for entrant in race.entrants.values():
        (run,) = entrant.runs
        assert run.loss[0] == pytest.approx(at_start, rel=0.3)  # of the training part
        assert run.loss[-1] < run.loss[0]  # type: ignore[operator]
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    with pytest.raises(CurvlabError, match="cannot be trained on"):
        curvlab.compare(model, ["sgd"], mode="training", data=[data()])


@pytest.mark.parametrize(
    ("what", "options", "sentence"),
    [
        (None, {"architecture": "m:f"}, "an architecture needs data"),
        ("digits-mlp", {"architecture": "m:f", "data": "digits"}, "a comparison is of one of them"),
        (None, {"loss": "mse"}, "a problem has its own"),
        ("model", {"steps": 3, "data": "xy"}, "steps is about a trajectory"),
        ("model", {"interval": 3, "data": "xy"}, "interval is about a trajectory"),
        ("model", {"warm_start": False, "data": "xy"}, "warm_start is about a trajectory"),
        (None, {"mode": "training", "interval": 3}, "interval is 3, which has an effect with mode=directions"),
        (None, {"mode": "training", "warm_start": False}, "warm_start is False, which has an effect"),
        (None, {"mode": "training", "baseline": "kfac"}, "baseline is 'kfac', which has an effect"),
        (None, {"mode": "training", "samples": 10}, "samples is 10, which has an effect"),
        (
            None,
            {"mode": "training", "settings": {"block-fisher": {"lr": 1.0}}},
            "settings are given for 'block-fisher'",
        ),
        (None, {"seconds": 3.0}, "seconds is 3.0, which has an effect with mode=training"),
    ],
)
def test_what_has_no_effect_is_refused(what: str | None, options: dict[str, Any], sentence: str) -> None:
    given: Any = nn.Linear(5, 3) if what == "model" else what
    options = {**options, **({"data": data()} if options.get("data") == "xy" else {})}
    with pytest.raises(CommandError, match=sentence):
        curvlab.compare(given, ["sgd"], **options)
