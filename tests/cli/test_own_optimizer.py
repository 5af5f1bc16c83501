"""A package adds optimizers by its entry point: listed, trained, compared and raced like the built-in ones."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "packages" / "signs" / "curvlab_signs.py"


def install(folder: Path, name: str, module: str) -> None:
    info = folder / f"{name.replace('-', '_')}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[curvlab.optimizers]\nmine = {module}\n")


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A folder for PYTHONPATH with the package, and one that fails to import."""
    folder = tmp_path_factory.mktemp("installed")
    shutil.copy(SOURCE, folder)
    install(folder, "curvlab-signs", "curvlab_signs")
    (folder / "curvlab_broken.py").write_text("raise RuntimeError('no such device')")
    install(folder, "curvlab-broken", "curvlab_broken")
    return {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])}


def test_it_is_listed_with_its_settings_and_a_broken_one_is_named(process, package):
    run = process("list", "optimizers", "--json", "-", env=package)
    assert run.returncode == 0, run.stderr
    document = json.loads(run.stdout)
    found = {entry["name"]: entry for entry in document["entries"]}
    assert list(found)[-2:] == ["sign-descent", "half-kfac"]
    assert found["sign-descent"]["settings"] == "lr=0.001, momentum=0.9, weight_decay=0.0, size=1.0"
    assert found["sign-descent"]["source"] == "Bernstein et al. 2018"
    assert found["half-kfac"]["settings"].startswith("lr=0.06, part=0.5, damping=0.01, rule=factored")
    assert "the plugin 'mine' of curvlab-broken 1.2 was skipped: RuntimeError: no such device" in run.stdout


def test_it_trains(process, package, tmp_path):
    wine = ("train", "--problem", "wine-mlp", "--epochs", "1", "--threads", "1", "--json", "-")
    run = process(*wine, "--optimizer", "half-kfac", "--set", "rule=exact", "--out", tmp_path / "r", env=package)
    assert run.returncode == 0, run.stderr
    summary = json.loads(run.stdout)
    assert (summary["optimizer"], summary["status"]) == ("half-kfac", "finished")
    assert (summary["settings"]["settings"]["part"], summary["settings"]["settings"]["rule"]) == (0.5, "exact")
    wrong = ("--set", "size=0", "--set", "speed=1", "--optimizer", "sign-descent", "--out", tmp_path / "s")
    run = process(*wine, *wrong, env=package)
    assert run.returncode == 2
    assert "size is 0, not a number above 0" in run.stderr
    assert "sign-descent has no setting 'speed'" in run.stderr


def test_it_is_compared_and_raced(process, package, tmp_path):
    arguments = ("compare", "--problem", "wine-mlp", "--optimizers", "sign-descent,half-kfac", "--threads", "1")
    run = process(
        *arguments, "--mode", "both", "--steps", "2", "--epochs", "1", "--json", tmp_path / "c.json", env=package
    )
    assert run.returncode == 0, run.stderr
    document = json.loads((tmp_path / "c.json").read_text())
    assert document["optimizers"]["half-kfac"]["mean"] > 0.5
    assert document["optimizers"]["sign-descent"]["mean"] is not None
    for entrant in document["training"]["sign-descent"], document["training"]["half-kfac"]:
        assert entrant["seeds"][0]["loss"][-1] < entrant["seeds"][0]["loss"][0]
