"""`--architecture`: each step that can fail says so, and weights are matched name by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from curvlab.errors import CheckpointError
from curvlab.formats.load import load

SOURCE = """
import sys
import torch
from torch import nn

def build(): return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
def wider(): return nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
def deeper(): return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2), nn.Linear(2, 2))
def broken(): raise ValueError("this\\nis broken")
def leaving(): sys.exit(3)
def number(): return 3
def needy(width): return nn.Linear(width, 1)
value = 3

class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = build()
    def forward(self, x): return self.net(x)

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(7, 3), nn.Linear(3, 7, bias=False)
        self.head.weight = self.embed.weight

class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.bn = nn.BatchNorm1d(4)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "networks_for_tests.py").write_text(SOURCE)
    (tmp_path / "broken_for_tests.py").write_text("raise RuntimeError('at import')")
    (tmp_path / "missing_import_for_tests.py").write_text("import a_module_that_is_nowhere")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    import sys

    for name in list(sys.modules):
        if name.endswith("_for_tests"):
            del sys.modules[name]


def saved(folder: Path, prefix: str = "") -> tuple[Path, nn.Module]:
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    torch.save({prefix + name: tensor for name, tensor in module.state_dict().items()}, folder / "m.pt")
    return folder / "m.pt", module


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "a.b."])
def test_a_network_from_the_working_directory(prefix: str, folder: Path) -> None:
    path, module = saved(folder, prefix)
    checkpoint = load(path, architecture="networks_for_tests:build")
    assert checkpoint.architecture == "networks_for_tests:build"
    x = torch.randn(5, 3)
    assert checkpoint.module is not None
    assert torch.equal(checkpoint.module(x), module(x))
    assert not checkpoint.module.training


def test_a_prefix_on_the_side_of_the_network(folder: Path) -> None:
    path, module = saved(folder)
    checkpoint = load(path, architecture="networks_for_tests:Wrapped")
    x = torch.randn(5, 3)
    assert checkpoint.module is not None
    assert torch.equal(checkpoint.module(x), module(x))


def test_a_callable_of_python(folder: Path) -> None:
    path, module = saved(folder)
    checkpoint = load(path, architecture=lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))
    assert checkpoint.module is not None
    assert torch.equal(checkpoint.module[0].weight, module[0].weight)  # type: ignore[index]


def test_tied_weights_may_be_stored_once(folder: Path) -> None:
    torch.save({"embed.weight": torch.ones(7, 3)}, folder / "m.pt")
    module = load(folder / "m.pt", architecture="networks_for_tests:Tied").module
    assert module is not None
    assert torch.equal(module.head.weight, torch.ones(7, 3))  # type: ignore[arg-type, union-attr]


def test_counters_of_batch_norms_may_be_missing(folder: Path) -> None:
    state = {f"bn.{role}": torch.ones(4) for role in ("weight", "bias", "running_mean", "running_var")}
    torch.save(state, folder / "m.pt")
    assert load(folder / "m.pt", architecture="networks_for_tests:Normed").module is not None


def test_half_precision_weights_fill_a_float32_network(folder: Path) -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).half()
    torch.save(module.state_dict(), folder / "m.pt")
    filled = load(folder / "m.pt", architecture="networks_for_tests:build").module
    assert filled is not None
    assert torch.equal(filled[0].weight, module[0].weight.float())  # type: ignore[index]


REFUSED = {
    "networks_for_tests": "does not have the form package.module:callable",
    "networks_for_tests:": "does not have the form",
    "networks_for_tests.py:build": "such as networks_for_tests:build",
    "networks_for_tests:build()": "does not have the form",
    "nowhere_for_tests:build": "no module 'nowhere_for_tests'",
    "nowhere_for_tests.deep:build": "no module 'nowhere_for_tests'",
    "missing_import_for_tests:build": "importing it raised ModuleNotFoundError",
    "broken_for_tests:build": "importing it raised RuntimeError: at import",
    "networks_for_tests:biuld": "did you mean 'build'",
    "networks_for_tests:value": "cannot be called",
    "networks_for_tests:broken": "raised ValueError: this;",
    "networks_for_tests:leaving": "raised SystemExit",
    "networks_for_tests:number": "returned 'int', not a torch.nn.Module",
    "networks_for_tests:needy": "raised TypeError",
    "networks_for_tests:wider": "0.weight is \\(4, 3\\) in the file and \\(5, 3\\) in the network",
    "networks_for_tests:deeper": "missing '3.weight', '3.bias'",
    "networks_for_tests:Normed": "not in the network '0.weight', '0.bias', '2.weight', '2.bias'",
}


@pytest.mark.parametrize("spec", REFUSED)
def test_every_step_that_fails_says_so(spec: str, folder: Path) -> None:
    path, _ = saved(folder)
    with pytest.raises(CheckpointError, match=REFUSED[spec]) as caught:
        load(path, architecture=spec)
    assert "\n" not in str(caught.value)


def test_the_search_path_is_left_as_it_was(folder: Path) -> None:
    import sys

    before = list(sys.path)
    path, _ = saved(folder)
    load(path, architecture="networks_for_tests:build")
    assert sys.path == before
