"""Settings that are torch's have torch's names, order and form; names of before are refused with the new one."""

from __future__ import annotations

import copy
import inspect
import json
import re
import sys
from typing import Any

import pytest
import torch
from curvlab_cli.main import run as command_line
from torch import nn
from torch.nn import functional as F

import curvlab
from curvlab.errors import CommandError, CurvlabError
from curvlab.listing import listing
from curvlab.optim import OPTIMIZERS, Adam, AdamW, Muon, RMSprop, create
from curvlab.optim.core import Optimizer
from curvlab.optim.declared import settings_of
from curvlab.training.configuration import configured, fresh
from curvlab.training.run_folder import RunFolder
from curvlab.training.settings import TrainingSettings
from curvlab.training.state_file import read_state, write_state
from tests.training_runs import trained

SAME = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "rmsprop": torch.optim.RMSprop, "muon": torch.optim.Muon}
"""In Muon, torch's eps is the smallest norm that Newton–Schulz divides by; ours is AdamW's."""
BEFORE = {
    ("adam", "beta1"): ("betas", "0.9,0.999"),
    ("adam", "beta2"): ("betas", "0.9,0.999"),
    ("adam", "damping"): ("eps", "1e-08"),
    ("adamw", "beta2"): ("betas", "0.9,0.999"),
    ("rmsprop", "decay"): ("alpha", "0.9"),
    ("rmsprop", "damping"): ("eps", "1e-08"),
    ("muon", "beta1"): ("betas", "0.9,0.999"),
    ("muon", "iterations"): ("ns_steps", "5"),
    ("muon", "adjust"): ("adjust_lr_fn", "match_rms_adamw"),
    ("fop", "damping"): ("eps", "1e-08"),
    ("s-hd", "beta1"): ("betas", "0.9,0.999"),
}
"""Optimizer and the name a setting had -> the name it has, and its default as the command line has it."""


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def train(model: nn.Module, optimizer: Any, steps: int = 3) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x = torch.randn(9, 4, generator=generator, dtype=torch.float64)
        optimizer.zero_grad()
        F.cross_entropy(model(x), x[:, :3].argmax(1)).backward()
        optimizer.step()


@pytest.mark.parametrize("name", SAME)
def test_what_both_know_has_one_name_and_the_first_places_one_order(name: str) -> None:
    ours, theirs = list(settings_of(OPTIMIZERS[name])), list(inspect.signature(SAME[name]).parameters)[1:]
    own = {"precision", "betas"} if name == "muon" else set()
    assert set(ours) - own <= set(theirs)
    if name != "muon":
        assert ours == theirs[: len(ours)]


@pytest.mark.parametrize(
    ("kind", "reference", "positional"),
    [
        (Adam, torch.optim.Adam, (0.02, (0.8, 0.99), 1e-3)),
        (AdamW, torch.optim.AdamW, (0.02, (0.8, 0.99), 1e-3, 0.1)),
        (RMSprop, torch.optim.RMSprop, (0.02, 0.95, 1e-3, 0.0, 0.8)),
    ],
)
def test_a_line_of_torch_is_one_of_curvlab(
    model: nn.Module, kind: type[Optimizer], reference: Any, positional: tuple[Any, ...]
) -> None:
    twin = copy.deepcopy(model)
    first = F.cross_entropy(model(torch.ones(1, 4).double()), torch.tensor([0]))
    ours = kind(model.parameters(), *positional)
    theirs = reference(twin.parameters(), *positional)
    if kind is RMSprop:  # whose average starts with the first square, or with a warm start, and not at zero
        grads = torch.autograd.grad(first, list(model.parameters()))
        for p, q, g in zip(model.parameters(), twin.parameters(), grads, strict=True):
            ours.state[p]["square"] = g * g
            theirs.state[q] = {"step": torch.tensor(0.0), "square_avg": g * g, "momentum_buffer": torch.zeros_like(q)}
    train(model, ours)
    train(twin, theirs)
    for mine, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-14)


def test_betas_are_a_tuple_however_they_are_given(model: nn.Module) -> None:
    optimizer = Adam(model, betas=[0.5, 0.6], groups=[{"params": ["0.weight"], "betas": [0.1, 0.2]}])  # type: ignore[arg-type]
    assert [group["betas"] for group in optimizer.param_groups] == [(0.1, 0.2), (0.5, 0.6)]
    train(model, optimizer)
    state = json.loads(json.dumps(optimizer.state_dict()["param_groups"]))
    assert [group["betas"] for group in state] == [[0.1, 0.2], [0.5, 0.6]]


@pytest.mark.parametrize("wrong", [(0.9,), (0.9, 0.99, 0.999), (0.9, 1.0), (-0.1, 0.9), 0.9, "0.9", ("0.9", 0.999)])
@pytest.mark.parametrize("name", ["adam", "muon", "pp-hd"])
def test_betas_are_two_numbers_below_one(model: nn.Module, name: str, wrong: Any) -> None:
    base = {"base": "adam"} if name == "pp-hd" else {}
    with pytest.raises(CurvlabError, match=r"betas is .*, not a list of two numbers from 0 to 0\.999999"):
        create(name, model, betas=wrong, **base)


@pytest.mark.parametrize(("name", "old"), BEFORE)
def test_an_old_name_is_answered_with_the_new_one(model: nn.Module, name: str, old: str) -> None:
    new, example = BEFORE[name, old]
    value = settings_of(OPTIMIZERS[name])[new].default
    with pytest.raises(CurvlabError) as error:
        create(name, model, **{old: value})
    assert (error.value.found, error.value.why, error.value.do) == (
        f"{name} has no setting {old!r}",
        f"it is called '{new}' now",
        f"write {new}={example}",
    )
    with pytest.raises(CurvlabError) as error:
        create(name, model, groups=[{"params": ["0.weight"], old: value}])
    assert (error.value.why, error.value.do) == (f"it is called '{new}' now", f"write {new}={example}")
    optimizer = create(name, model)
    train(model, optimizer)
    state = optimizer.state_dict()
    before = copy.deepcopy(state)
    for group in before["param_groups"]:
        group[old] = group.pop(new)
    with pytest.raises(CurvlabError) as error:
        optimizer.load_state_dict(before)
    assert error.value.found == f"the saved state of {name} has the setting {old!r}"
    assert error.value.why == f"it is called '{new}' now"
    assert error.value.do == f"write {new}={example} in its param_groups"
    optimizer.load_state_dict(state)


@pytest.mark.parametrize(("name", "old"), BEFORE)
def test_an_old_name_in_a_file_or_on_the_command_line_too(
    tmp_path: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, old: str
) -> None:
    new, example = BEFORE[name, old]
    said = f"{name} has no setting '{old}', it is called '{new}' now: write {new}={example}"
    path = tmp_path / "run.toml"
    path.write_text(f'optimizer = "{name}"\n[set]\n{old} = 0.9\n')
    with pytest.raises(CommandError, match=re.escape(said)):
        fresh(configured({}, [], path))
    for command in (
        ["train", "--optimizer", name, "--set", f"{old}=0.9", "--dry-run"],
        ["compare", "--optimizers", name, "--set", f"{name}.{old}=0.9"],
    ):
        monkeypatch.setattr(sys, "argv", ["curvlab", *command])
        with pytest.raises(SystemExit) as ended:
            command_line()
        assert ended.value.code == 2
        assert said in " ".join(capsys.readouterr().err.split())


def test_betas_from_a_file_the_command_line_and_python(tmp_path: Any) -> None:
    wanted = TrainingSettings("adam", settings={"betas": (0.8, 0.99)})
    path = tmp_path / "run.toml"
    path.write_text('optimizer = "adam"\n[set]\nbetas = [0.8, 0.99]\n')
    assert fresh(configured({}, [], path)) == wanted
    for written in ("0.8,0.99", "[0.8, 0.99]", "(0.8,0.99)"):
        assert fresh(configured({"optimizer": "adam"}, [f"betas={written}"], None)) == wanted
    assert TrainingSettings("adam", settings={"betas": [0.8, 0.99]}) == wanted
    # Through JSON, as a race's own process is told.
    assert TrainingSettings(**json.loads(json.dumps(wanted.to_dict()))) == wanted


def test_a_run_with_betas_goes_on_and_is_compared(tmp_path: Any) -> None:
    common = {"optimizer": "adam", "settings": {"betas": [0.8, 0.99]}}
    first = trained(tmp_path, **common, steps=3)
    assert tuple(first.settings["settings"]["betas"]) == (0.8, 0.99)
    again = trained(tmp_path, **common, steps=5, resume=True)
    assert again.to_dict()["steps"] == 5
    with pytest.raises(CommandError, match=re.escape("betas=(0.8, 0.99), not (0.7, 0.99)")):
        trained(tmp_path, **{**common, "settings": {"betas": [0.7, 0.99]}}, steps=6, resume=True)
    settings = {"adam": {"betas": [0.8, 0.99]}, "a": {"betas": (0.8, 0.99)}}
    found = curvlab.compare("wine-mlp", ["adam", "a=adam"], steps=2, settings=settings).to_dict()["optimizers"]
    assert found["adam"]["settings"] == found["a"]["settings"]
    assert found["adam"]["mean_cosine"] == found["a"]["mean_cosine"]


def test_a_saved_run_with_an_old_name_is_not_resumed(tmp_path: Any) -> None:
    trained(tmp_path, optimizer="rmsprop", steps=2, settings={"alpha": 0.8})
    place = RunFolder(tmp_path).state
    state = read_state(place)
    state["used"]["decay"] = state["used"].pop("alpha")
    write_state(place, state)
    with pytest.raises(CurvlabError, match=r"no setting 'decay', it is called 'alpha' now: write alpha=0\.9"):
        trained(tmp_path, optimizer="rmsprop", steps=3, resume=True)


def test_the_list_of_optimizers_shows_them_as_they_are_written() -> None:
    settings = {row[0]: row[2] for row in listing("optimizers").rows}
    assert "betas=0.9,0.999" in settings["adam"]
    assert "alpha=0.9" in settings["rmsprop"]


def test_muon_is_given_torchs_settings(model: nn.Module) -> None:
    optimizer = Muon(model, ns_steps=3, adjust_lr_fn="original", betas=(0.8, 0.9), eps=1e-6)
    group = optimizer.param_groups[0]
    assert (group["ns_steps"], group["adjust_lr_fn"], group["betas"], group["eps"]) == (3, "original", (0.8, 0.9), 1e-6)
