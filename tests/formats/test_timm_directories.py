"""Directories of timm, with a stand-in for the library."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import curvlab
from curvlab.errors import CheckpointError
from curvlab.formats.load import load


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module in timm's place with one network, which notes how it was asked."""
    made = types.ModuleType("timm")
    made.__version__ = "0"  # type: ignore[attr-defined]
    made.asked = []  # type: ignore[attr-defined]

    def create_model(name: str, pretrained: bool, num_classes: int = 10, width: int = 4) -> nn.Module:
        made.asked.append((name, pretrained, num_classes, width))  # type: ignore[attr-defined]
        net = nn.Sequential()
        net.add_module("stem", nn.Conv2d(3, width, 3))
        net.add_module("flat", nn.Flatten())
        net.add_module("fc", nn.Linear(36 * width, num_classes))
        return net

    made.create_model = create_model  # type: ignore[attr-defined]
    made.is_model = lambda name: name.split(".")[0] == "tiny"  # type: ignore[attr-defined]
    made.get_pretrained_cfg = lambda name: types.SimpleNamespace(classifier="fc")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", made)
    return made


def directory(folder: Path, **config: Any) -> Path:
    net = nn.Sequential()
    net.add_module("stem", nn.Conv2d(3, 4, 3))
    net.add_module("fc", nn.Linear(144, 7))
    save_file(net.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architecture": "tiny", **config}))
    return folder


def test_a_timm_directory(timm: Any, tmp_path: Path) -> None:
    checkpoint = load(directory(tmp_path, num_classes=7, model_args={"width": 4}))
    assert checkpoint.architecture == "timm:tiny"
    assert timm.asked == [("tiny", False, 7, 4)]
    analysis = curvlab.analyze(checkpoint, (torch.randn(8, 3, 8, 8), torch.arange(8) % 7))
    assert analysis.coverage.analyzed == analysis.coverage.parameters


def test_timm_by_name_counts_the_classes_of_the_file(timm: Any, tmp_path: Path) -> None:
    path = directory(tmp_path) / "model.safetensors"
    assert load(path, architecture="timm:tiny.in1k").architecture == "timm:tiny.in1k"
    assert timm.asked == [("tiny.in1k", False, 7, 4)]


TIMM_REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a name that asks a server": ({"architecture": "hf-hub:someone/model"}, "no model named 'hf-hub:someone/model'"),
    "a name that opens files": ({"architecture": "local-dir:/etc"}, "no model named"),
    "an unknown name": ({"architecture": "huge"}, "no model named 'huge'"),
    "arguments it does not take": ({"model_args": {"code": 1}}, "timm cannot make 'tiny'"),
    "arguments that are no table": ({"model_args": [1]}, "are no table"),
    "a huge width": ({"model_args": {"width": 10**9}}, "beyond what a network can have"),
    "more than the file fills": ({"model_args": {"width": 500_000}}, "more weights than the file can fill"),
    "weights of another size": ({"num_classes": 9}, "does not fit the network"),
}


@pytest.mark.parametrize("name", TIMM_REFUSED)
def test_timm_directories_that_leave_weights_only(name: str, timm: Any, tmp_path: Path) -> None:
    config, words = TIMM_REFUSED[name]
    checkpoint = load(directory(tmp_path, **config))
    assert checkpoint.module is None
    assert words in checkpoint.notes[-1]
    assert {layer.kind for layer in checkpoint.layers} == {"Conv2d", "Linear"}


def test_without_timm_there_are_weights_and_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    checkpoint = load(directory(tmp_path))
    assert checkpoint.module is None
    assert "pip install 'curvlab[timm]'" in checkpoint.notes[-1]
    with pytest.raises(CheckpointError, match="timm, which makes the network, cannot be imported"):
        load(tmp_path / "model.safetensors", architecture="timm:resnet18")
