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

from curvlab.errors import CheckpointError
from curvlab.formats.curvlab_file.file import save
from curvlab.formats.curvlab_file.fop_matrices import KEY, FopMatrices, fop_matrices
from curvlab.formats.curvlab_file.fop_snapshots import fop_snapshots
from curvlab.formats.curvlab_file.stored_fop import without_fop_matrices
from curvlab.formats.load import load
from curvlab.formats.safetensors.file import read_safetensors
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
    weights = without_fop_matrices(stored)
    found = weights.fop
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
    weights = without_fop_matrices(stored)
    assert weights is stored
    assert weights.fop is None
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


def test_a_saved_network_brings_its_matrices_and_its_weights_are_its_own(tmp_path: Path) -> None:
    model, optimizer = trained()
    path = tmp_path / "m.safetensors"
    save(path, model, data="digits", likelihood="categorical", fop=fop_matrices(optimizer.matrices, optimizer.forms))
    checkpoint = load(path)
    assert checkpoint.format == "curvlab"
    assert checkpoint.module is not None
    assert list(checkpoint.tensors) == list(model.state_dict())
    assert [layer.name for layer in checkpoint.layers] == ["0", "2", "3"]
    x = torch.randn(3, 1, 3, 5)
    assert torch.equal(checkpoint.module(x), model(x))
    assert checkpoint.fop is not None
    assert all(torch.equal(checkpoint.fop.factors[name], m) for name, m in optimizer.matrices.items())
    assert not checkpoint.notes
    # What was loaded can be written again.
    save(tmp_path / "again", checkpoint.module, data="digits", likelihood="categorical", fop=checkpoint.fop)
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    save(tmp_path / "plain", checkpoint.module)
    assert load(tmp_path / "plain").fop is None


def test_matrices_of_another_network_are_refused_when_saving(tmp_path: Path) -> None:
    model, optimizer = trained()
    matrices = fop_matrices(optimizer.matrices, optimizer.forms)
    with pytest.raises(CheckpointError, match=r"of '2\.weight' cannot be stored .* does not fit the parameter"):
        save(tmp_path / "m", nn.Sequential(*model[:2], nn.Linear(11, 5), model[3]), fop=matrices)
    wrong = FopMatrices({"0.weight": torch.ones(6, 2)}, {"0.weight": "full"}, {"0.weight": False})
    with pytest.raises(CheckpointError, match="is not what it is said to be"):
        save(tmp_path / "m", model, fop=wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_tied_weight_has_one_matrix(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 9, bias=False))
    model[1].weight = model[0].weight
    optimizer = FOP(model)
    save(tmp_path / "m", model, fop=fop_matrices(optimizer.matrices, optimizer.forms))
    checkpoint = load(tmp_path / "m")
    assert checkpoint.fop is not None
    assert list(checkpoint.fop.factors) == ["0.weight"]
    second = FopMatrices({"1.weight": torch.eye(4)}, {"1.weight": "full"}, {"1.weight": False})
    save(tmp_path / "n", model, fop=second)
    assert load(tmp_path / "n").fop is not None


def test_prefixes_that_training_left_come_off_the_matrices_too(tmp_path: Path) -> None:
    tensors = {
        "module.a.weight": torch.ones(2, 3),
        "module.a.bias": torch.ones(2),
        f"{KEY}.module.a.weight": torch.eye(3),
    }
    save_file(tensors, tmp_path / "m", {KEY: json.dumps({"module.a.weight": GOOD})})
    checkpoint = load(tmp_path / "m")
    assert set(checkpoint.tensors) == {"a.weight", "a.bias"}
    assert checkpoint.fop is not None
    assert torch.equal(checkpoint.fop.factors["a.weight"], torch.eye(3))
    assert (checkpoint.fop.forms["a.weight"], checkpoint.fop.normalized["a.weight"]) == ("full", False)


def test_snapshots_are_read_in_order_and_not_too_many(tmp_path: Path) -> None:
    model, optimizer = trained()
    (tmp_path / "snapshots").mkdir()
    save(tmp_path / "model.safetensors", model)
    assert fop_snapshots(tmp_path / "model.safetensors") == ()
    for epoch in [*range(1, 31), 10000]:
        m = {"0.weight": torch.eye(6) * epoch}
        matrices = FopMatrices(m, {"0.weight": "full"}, {"0.weight": False})
        save(tmp_path / "snapshots" / f"epoch-{epoch:04d}.safetensors", model, fop=matrices)
    save(tmp_path / "snapshots" / "epoch-0031.safetensors", model)  # without: left out
    (tmp_path / "snapshots" / "epoch-x.safetensors").write_bytes(b"no snapshot")
    for place in (tmp_path / "model.safetensors", tmp_path / "snapshots" / "epoch-0004.safetensors"):
        found = fop_snapshots(place)
        epochs = [int(one.title.removeprefix("epoch ")) for one in found]
        assert epochs == sorted(epochs)
        assert (epochs[0], epochs[-1]) == (1, 10000)
        assert len(epochs) <= 12
        assert all(one.fop.factors["0.weight"][0, 0] == epoch for one, epoch in zip(found, epochs, strict=True))
    assert optimizer.matrices


def test_the_folder_of_a_run_is_its_model(tmp_path: Path) -> None:
    save(tmp_path / "model.safetensors", nn.Linear(3, 2))
    save(tmp_path / "of-epoch-1.safetensors", nn.Linear(3, 2))
    with pytest.raises(CheckpointError, match="of-epoch-1"):
        load(tmp_path)
    (tmp_path / "metrics.jsonl").touch()
    assert load(tmp_path).path == tmp_path / "model.safetensors"
