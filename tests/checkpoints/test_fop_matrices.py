"""FOP's matrices beside the weights of a file: written, told apart, read back, and refused when they make no sense."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from curvlab.checkpoints.fop_matrices import KEY, fop_matrices, without_fop_matrices
from curvlab.checkpoints.safetensors_file import read_safetensors
from curvlab.errors import CheckpointError
from curvlab.operators.matrix import matrix
from curvlab.optim import FOP


def trained() -> tuple[nn.Module, FOP]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, (2, 3)), nn.Flatten(), nn.Linear(12, 5), nn.Linear(5, 3))
    groups = [{"params": ["2.weight"], "form": "low-rank", "rank": 2, "norm": True}]
    optimizer = FOP(model, groups=groups, hyper_lr=0.05)
    x, y = torch.randn(8, 1, 3, 5), torch.randint(0, 3, (8,))
    for _ in range(4):
        optimizer.step(lambda: F.cross_entropy(model(x), y))
    return model, optimizer


def written(path: Path, model: nn.Module, optimizer: FOP) -> Path:
    found = fop_matrices(optimizer.matrices, optimizer.forms)
    save_file({**model.state_dict(), **found.tensors()}, path, {"other": "kept", **found.metadata()})
    return path


def test_matrices_come_back_apart_from_the_weights(tmp_path: Path) -> None:
    model, optimizer = trained()
    stored = read_safetensors(written(tmp_path / "m.safetensors", model, optimizer))
    weights, found = without_fop_matrices(stored)
    assert found is not None
    assert set(weights.specs) == set(weights.tensors) == set(model.state_dict())
    assert set(found.factors) == {"0.weight", "2.weight", "3.weight"}
    for name, m in optimizer.matrices.items():
        assert torch.equal(found.factors[name], m)
        wanted = matrix(optimizer.forms[name].operator(m))
        torch.testing.assert_close(matrix(found.operator(name)), wanted)
    assert dict(found.forms) == {"0.weight": "full", "2.weight": "low-rank", "3.weight": "full"}
    assert dict(found.normalized) == {"0.weight": False, "2.weight": True, "3.weight": False}
    again = fop_matrices(found.factors, {name: found.form(name) for name in found.factors})
    assert again.metadata() == fop_matrices(optimizer.matrices, optimizer.forms).metadata()


def test_files_without_matrices_are_as_they_were(tmp_path: Path) -> None:
    model, _ = trained()
    save_file(model.state_dict(), tmp_path / "m.safetensors", {})
    stored = read_safetensors(tmp_path / "m.safetensors")
    weights, found = without_fop_matrices(stored)
    assert weights is stored
    assert found is None
    assert fop_matrices({}, {}).metadata() == {}


GOOD = {"form": "full", "norm": False}


@pytest.mark.parametrize(
    ("factor", "described", "sentence"),
    [
        (torch.zeros(3, 3), {"weight": {"form": "full"}}, "metadata is not what curvlab writes"),
        (torch.zeros(3, 3), {"weight": {"form": "round", "norm": False}}, "metadata is not what curvlab writes"),
        (torch.zeros(3, 3), {"weight": {"form": ["full"], "norm": 1}}, "metadata is not what curvlab writes"),
        (torch.zeros(3, 3), [], "metadata is not what curvlab writes"),
        (torch.zeros(3, 3), {}, "differ in 'weight'"),
        (torch.zeros(3, 3), {"weight": GOOD, "other": GOOD}, "differ in 'other'"),
        (torch.zeros(2, 2), {"weight": GOOD}, "does not fit the parameter"),
        (torch.zeros(3), {"weight": GOOD}, "does not fit the parameter"),
        (torch.zeros(3, 2), {"weight": GOOD}, "not what it is said to be"),
        (torch.zeros(3, 0), {"weight": {**GOOD, "form": "low-rank"}}, "not what it is said to be"),
        (torch.zeros(3, 4), {"weight": {**GOOD, "form": "low-rank"}}, "not what it is said to be"),
        (torch.zeros(3, 3, dtype=torch.int32), {"weight": GOOD}, "not what it is said to be"),
    ],
)
def test_matrices_that_make_no_sense_are_refused(tmp_path: Path, factor: Any, described: Any, sentence: str) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"weight": torch.ones(2, 3), "curvlab.fop.weight": factor}, path, {KEY: json.dumps(described)})
    with pytest.raises(CheckpointError, match="FOP matrices") as caught:
        without_fop_matrices(read_safetensors(path))
    assert sentence in str(caught.value)


def test_a_matrix_of_no_parameter_and_broken_metadata_are_refused(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2, 3), "curvlab.fop.v": torch.eye(3)}, tmp_path / "a", {KEY: json.dumps({"v": GOOD})})
    save_file({"w": torch.ones(2, 3), "curvlab.fop.w": torch.eye(3)}, tmp_path / "b", {KEY: "{NaN"})
    save_file({"w": torch.ones(2, 3), "curvlab.fop.w": torch.eye(3)}, tmp_path / "c", {})
    for name in "abc":
        with pytest.raises(CheckpointError, match="FOP matrices"):
            without_fop_matrices(read_safetensors(tmp_path / name))
