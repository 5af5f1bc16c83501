"""Folders of runs that somebody else made: nothing that they name is imported or opened, no link is followed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_runs import left_behind, trained

from curvlab.errors import CommandError, CurvlabError
from curvlab.reports.plots import draw
from curvlab.reports.training import resume_command
from curvlab.reports.training_figures import training_figures
from curvlab.training.configuration import configured
from curvlab.training.run_folder import RunFolder
from curvlab.training.state_file import read_state, write_state

EVIL = """
import pathlib
pathlib.Path({marker!r}).touch()
from torch import nn
build = lambda: nn.Sequential(nn.Linear(13, 16), nn.Tanh(), nn.Linear(16, 3))
"""


def forged(folder: Path, **settings: Any) -> None:
    """The state in the folder with other settings, its checksum recomputed."""
    path = RunFolder(folder).state
    state = read_state(path)
    write_state(path, {**state, "settings": {**state["settings"], **settings}})


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is there when the module `evil`, which can be imported, was."""
    marker = tmp_path / "executed"
    (tmp_path / "evil.py").write_text(EVIL.format(marker=str(marker)))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "evil", raising=False)
    return marker


def test_code_that_a_state_names_is_not_imported(tmp_path: Path, planted: Path) -> None:
    trained(tmp_path / "r", optimizer="sgd", steps=3)
    forged(tmp_path / "r", architecture="evil:build", problem=None, data="wine")
    with pytest.raises(CurvlabError, match=r"names code, 'evil:build'.*import.*--trust"):
        trained(tmp_path / "r", resume=True)
    assert not planted.exists()
    with pytest.raises(CommandError, match="architecture evil:build, not noisynet:build"):
        trained(tmp_path / "r", resume=True, architecture="noisynet:build", data="wine")
    assert not planted.exists()


@pytest.mark.usefixtures("planted")
def test_code_is_imported_when_it_is_trusted_or_named_again(tmp_path: Path) -> None:
    own = {"architecture": "evil:build", "data": "wine"}
    trained(tmp_path / "r", optimizer="sgd", steps=3, **own)
    assert trained(tmp_path / "r", resume=True, trust=True, steps=4).steps == 4
    assert trained(tmp_path / "r", resume=True, steps=5, **own).steps == 5


def test_code_that_a_configuration_names_is_not_imported(tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text('optimizer = "sgd"\narchitecture = "evil:build"\ndata = "wine"\n')
    with pytest.raises(CommandError, match=r"names code, 'evil:build'.*--trust"):
        configured({}, [], config)
    assert configured({}, [], config, trust=True)["architecture"] == "evil:build"
    given = configured({"architecture": "mine:build"}, [], config)
    assert given["architecture"] == "mine:build"


def test_a_path_that_a_state_names_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "d.npz"
    random = np.random.default_rng(0)
    np.savez(data, x=random.normal(size=(80, 13)), y=random.integers(0, 3, 80))
    trained(tmp_path / "r", optimizer="sgd", steps=3, data=str(data), problem="wine-mlp")

    with monkeypatch.context() as patch:
        patch.setattr("curvlab.problems.split.load", lambda *_, **__: pytest.fail("the path was opened"))
        with pytest.raises(CurvlabError, match=r"names a path to read, .*d\.npz.*--data.*--trust"):
            trained(tmp_path / "r", resume=True)
    assert trained(tmp_path / "r", resume=True, steps=4, data=str(data)).steps == 4
    result = trained(tmp_path / "r", resume=True, steps=5, trust=True)
    assert resume_command(result) == f"curvlab train --resume --out {tmp_path / 'r'} --data {data}"


FILES = ("metrics.jsonl", "summary.json", "model.safetensors", "factors.safetensors", "state/training.state")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link", "named pipe", "folder"])
def test_what_is_no_file_of_its_own_is_not_written_to(tmp_path: Path, name: str, kind: str) -> None:
    out, outside = tmp_path / "r", tmp_path / "outside"
    trained(out, optimizer="kfac", steps=5, save_factors=True)
    path = out / name
    outside.write_bytes(path.read_bytes())
    before = outside.read_bytes()
    path.unlink()
    make: dict[str, Callable[[], object]] = {
        "link": lambda: path.symlink_to(outside),
        "dangling link": lambda: path.symlink_to(tmp_path / "new"),
        "hard link": lambda: os.link(outside, path),
        "named pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
    }
    make[kind]()
    words = {"dangling link": "is a link", "hard link": "has another name"}.get(kind, f"is a {kind}")
    with pytest.raises(CurvlabError, match=words):
        trained(out, resume=True, steps=10)
    with pytest.raises(CommandError, match="already holds a run"):
        trained(out, optimizer="kfac", steps=5)
    assert outside.read_bytes() == before
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["state", "snapshots", "."])
@pytest.mark.parametrize("how", [{"resume": True, "steps": 10}, {"force": True, "optimizer": "sgd", "steps": 5}])
def test_folders_that_lead_elsewhere_are_not_written_to(tmp_path: Path, name: str, how: dict[str, Any]) -> None:
    out, outside = tmp_path / "r", tmp_path / "outside"
    trained(out, optimizer="sgd", steps=5, snapshots=1)
    (out / name).rename(outside)
    (tmp_path / "r" / name).symlink_to(outside)
    before = {path: path.read_bytes() for path in sorted(outside.rglob("*")) if path.is_file()}
    assert before
    with pytest.raises(CurvlabError, match=f"is a link to '{outside}'"):
        trained(out, **how)
    assert {path: path.read_bytes() for path in sorted(outside.rglob("*")) if path.is_file()} == before


def test_a_run_that_begins_follows_no_link_either(tmp_path: Path) -> None:
    out = tmp_path / "r"
    out.mkdir()
    (out / "metrics.jsonl").symlink_to(tmp_path / "outside")
    with pytest.raises(CommandError, match="already holds a run"):
        trained(out, optimizer="sgd", steps=5)
    (tmp_path / "outside").write_text("mine")
    assert trained(out, optimizer="sgd", steps=5, force=True).status == "finished"
    assert (tmp_path / "outside").read_text() == "mine"
    assert not (out / "metrics.jsonl").is_symlink()


def test_a_link_put_there_meanwhile_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    log = RunFolder.log

    def swapped(folder: RunFolder, entry: Any) -> None:
        folder.metrics.unlink(missing_ok=True)
        folder.metrics.symlink_to(outside)
        log(folder, entry)

    monkeypatch.setattr(RunFolder, "log", swapped)
    with pytest.raises(CurvlabError, match=r"metrics\.jsonl' is a link"):
        trained(tmp_path / "r", optimizer="sgd", steps=5)
    assert outside.read_text() == "mine"


def test_curves_are_not_drawn_into_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    result = trained(tmp_path / "r", optimizer="sgd", steps=5)
    for name in ("loss.png", "loss.svg"):
        (tmp_path / "r" / name).symlink_to(outside)
    draw(training_figures(result), tmp_path / "r")
    assert outside.read_text() == "mine"
    assert (tmp_path / "r" / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_names_beside_the_file_cannot_be_guessed(tmp_path: Path) -> None:
    """The file that is renamed into place is a new one, even where somebody left links under its likely names."""
    out, outside = tmp_path / "r", tmp_path / "outside"
    trained(out, optimizer="sgd", steps=5)
    outside.write_text("mine")
    for name in FILES:
        file = out / name
        file.with_name(f".{file.name}.{os.getpid()}.partial").symlink_to(outside)
    trained(out, resume=True, steps=10)
    assert outside.read_text() == "mine"
    trained(tmp_path / "s", optimizer="sgd", steps=10)
    assert left_behind(out) == left_behind(tmp_path / "s")
