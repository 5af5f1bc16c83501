"""From `curvlab train --optimizer fop` to its matrices in a table, a document and pictures."""

from __future__ import annotations

import json

import pytest
import torch

from curvlab.formats.load import load

TRAIN = ("train", "--optimizer", "fop", "--problem", "digits-cnn", "--set", "lr=0.1", "--set", "form=spatial")


@pytest.fixture(scope="module")
def trained(process, tmp_path_factory):
    """The folder of a run of two epochs with a snapshot of each."""
    out = tmp_path_factory.mktemp("fop") / "run"
    run = process(*TRAIN, "--epochs", 2, "--snapshots", 1, "--threads", 1, "--out", out)
    assert run.returncode == 0, run.stderr
    return out


def test_the_files_of_a_run_hold_what_was_learned(trained):
    first, second, last = (
        load(trained / name).fop
        for name in ("snapshots/epoch-0001.safetensors", "snapshots/epoch-0002.safetensors", "model.safetensors")
    )
    for fop in (first, second, last):
        assert set(fop.factors) == {"conv1.weight", "conv2.weight"}
    for name, m in last.factors.items():
        assert torch.equal(m, second.factors[name])
        assert not torch.equal(m, first.factors[name])
        assert not torch.equal(m, torch.eye(9))


def test_the_folder_is_a_model_and_its_pictures_are_drawn(trained, inside, tmp_path):
    run = inside("analyze", trained, "--threads", 1, "--json", tmp_path / "a.json", "--plots", tmp_path / "pictures")
    assert run.returncode == 0, run.stderr
    assert "FOP's learned matrices" in run.stdout
    assert "at the data's own targets" in " ".join(run.stdout.split())
    assert "condition-numbers, fop-eigenvalues, fop-heat-maps, fop-values, spectra" in run.stderr
    stems = {"condition-numbers", "fop-eigenvalues", "fop-heat-maps", "fop-values", "spectra"}
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {
        f"{s}.{k}" for s in stems for k in ("png", "svg")
    }
    document = json.loads((tmp_path / "a.json").read_text())
    assert [entry["name"] for entry in document["fop"]] == ["conv1", "conv2"]
    assert all(entry["angle"]["degrees"] < 90 for entry in document["fop"])
    assert [layer["name"] for layer in document["layers"]] == ["conv1", "conv2", "fc"]
    assert document["model"]["parameters"] == 3818


def test_it_can_be_asked_for_alone(trained, inside):
    run = inside("analyze", trained / "model.safetensors", "--analyses", "fop", "--json", "-", "--samples", 50)
    assert run.returncode == 0, run.stderr
    document = json.loads(run.stdout)
    assert [entry["angle"]["examples"] for entry in document["fop"]] == [50, 50]
    assert all(layer["weights"] is None and layer["kfac"] is None for layer in document["layers"])


def test_a_gate_can_look_at_it(trained, inside):
    options = ("--analyses", "fop", "--samples", 20, "--fail-if", "fop.0.spectrum.min < 1e9")
    assert inside("analyze", trained, *options).returncode == 3


def test_a_model_without_it_says_what_is_missing(inside):
    run = inside("analyze", "model.safetensors", "--analyses", "fop")
    assert run.returncode == 1
    assert "curvlab train --optimizer fop" in run.stderr


def test_pictures_of_any_model(inside, tmp_path):
    run = inside("analyze", "model.safetensors", "--plots", tmp_path / "pictures")
    assert run.returncode == 0
    assert "drawn in" in run.stderr
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {
        "condition-numbers.png",
        "condition-numbers.svg",
    }


def test_wrong_places_for_pictures_are_refused_before_any_work(inside, tmp_path):
    (tmp_path / "file").touch()
    for options in (("--plots", tmp_path / "file"), ("--plots", tmp_path, "--dry-run")):
        run = inside("analyze", "model.safetensors", *options)
        assert run.returncode == 2
        assert "--plots" in run.stderr
        assert "reading" not in run.stderr
