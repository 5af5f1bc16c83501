"""curvlab's own files: a network saved and loaded is the same network, and a file appears whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import parametrizations

from curvlab.errors import CheckpointError, MemoryBudgetError
from curvlab.formats.curvlab_file.file import save
from curvlab.formats.load import load


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.PReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 10)
    )


def tied() -> nn.Module:
    module = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 9))
    module[2].weight = module[0].weight
    return module


def shared() -> nn.Module:
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, nn.Tanh(), layer, nn.Linear(4, 2))


CASES = {
    "convolutional": (convolutional, torch.randn(3, 1, 8, 8)),
    "tied": (tied, torch.randint(0, 9, (3, 5))),
    "shared": (shared, torch.randn(3, 4)),
    "double": (lambda: nn.Sequential(nn.Linear(4, 2)).double(), torch.randn(3, 4).double()),
    "half": (lambda: nn.Sequential(nn.Linear(4, 2)).bfloat16(), torch.randn(3, 4).bfloat16()),
    "lone layer": (lambda: nn.Linear(4, 2), torch.randn(3, 4)),
}


@pytest.mark.parametrize("name", CASES)
def test_round_trip(name: str, tmp_path: Path) -> None:
    make, x = CASES[name]
    module = make()
    module(x)  # batch norm moves its statistics
    module.eval()
    save(tmp_path / "m.safetensors", module, data="digits", likelihood="categorical", metadata={"note": "x"})
    checkpoint = load(tmp_path / "m.safetensors")
    assert checkpoint.format == "curvlab"
    assert checkpoint.architecture == "curvlab metadata"
    assert (checkpoint.data, checkpoint.likelihood, checkpoint.metadata["note"]) == ("digits", "categorical", "x")
    assert checkpoint.module is not None
    assert not checkpoint.module.training
    assert repr(checkpoint.module) == repr(module)
    assert torch.equal(checkpoint.module(x), module(x))
    assert [p.requires_grad for p in checkpoint.module.parameters()] == [p.requires_grad for p in module.parameters()]
    assert not checkpoint.notes


def test_ties_survive(tmp_path: Path) -> None:
    save(tmp_path / "m", tied())
    checkpoint = load(tmp_path / "m")
    module = checkpoint.module
    assert isinstance(module, nn.Sequential)
    assert module[2].weight is module[0].weight
    assert dict(checkpoint.aliases) == {"2.weight": "0.weight"}
    assert "2.weight" not in load_file(tmp_path / "m")


def test_shared_modules_survive(tmp_path: Path) -> None:
    save(tmp_path / "m", shared())
    module = load(tmp_path / "m").module
    assert isinstance(module, nn.Sequential)
    assert module[0] is module[2]
    assert len(list(module.parameters())) == 4


def test_a_loaded_network_trains(tmp_path: Path) -> None:
    save(tmp_path / "m", nn.Sequential(nn.LSTM(3, 4, batch_first=True)))
    module = load(tmp_path / "m").module
    assert module is not None
    module.train()
    module(torch.randn(2, 5, 3))[0].sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_layers_and_tensors_come_in_the_order_of_the_network(tmp_path: Path) -> None:
    from collections import OrderedDict

    save(tmp_path / "m", nn.Sequential(OrderedDict(zebra=nn.Linear(3, 4), ape=nn.Linear(4, 2))))
    checkpoint = load(tmp_path / "m")
    assert [layer.name for layer in checkpoint.layers] == ["zebra", "ape"]
    assert list(checkpoint.tensors) == ["zebra.weight", "zebra.bias", "ape.weight", "ape.bias"]


def test_the_file_is_plain_safetensors(tmp_path: Path) -> None:
    module = nn.Linear(3, 2)
    save(tmp_path / "m", module)
    with safe_open(tmp_path / "m", "pt") as file:
        assert json.loads(file.metadata()["curvlab.architecture"])["network"]["type"] == "Linear"
        assert torch.equal(file.get_tensor("weight"), module.weight)


def test_parametrised_layers_are_refused_when_saving(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        save(tmp_path / "m", nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 2))))
    module = nn.Linear(3, 2)
    module.register_buffer("extra", torch.ones(2))
    with pytest.raises(CheckpointError, match="'extra'"):
        save(tmp_path / "m", module)


def test_saving_twice_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    save(tmp_path / "m", nn.Linear(3, 2))
    save(tmp_path / "m", nn.Linear(5, 2))
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    assert load(tmp_path / "m").shapes["weight"] == (2, 5)


def test_a_failed_save_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "m", nn.Linear(3, 2))
    before = (tmp_path / "m").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CheckpointError, match=r"cannot be written: .*No space left"):
        save(tmp_path / "m", nn.Linear(5, 2))
    assert (tmp_path / "m").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be written"):
        save(tmp_path / "missing" / "m", nn.Linear(3, 2))
    with pytest.raises(CheckpointError, match="cannot be written"):
        save(tmp_path, nn.Linear(3, 2))
    with pytest.raises(CheckpointError, match="is no file name"):
        save(".", nn.Linear(3, 2))
    with pytest.raises(CheckpointError, match="no likelihood"):
        save(tmp_path / "m", nn.Linear(3, 2), likelihood="poisson")
    with pytest.raises(CheckpointError, match="may not be 'weight'"):
        save(tmp_path / "m", nn.Linear(3, 2), metadata={"best": "weight"})
    with pytest.raises(CheckpointError, match=r"may not be named 'curvlab\.format'"):
        save(tmp_path / "m", nn.Linear(3, 2), metadata={"curvlab.format": "7"})


def test_the_memory_allowed_is_checked_before_the_network_is_made(tmp_path: Path) -> None:
    save(tmp_path / "m", nn.Sequential(nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False)))
    with pytest.raises(MemoryBudgetError, match="needs 32768 bytes"):
        load(tmp_path / "m", max_memory=20_000)  # each tensor fits, both do not


def _rewritten(path: Path, architecture: object = None, **metadata: str) -> Path:
    save(path, nn.Sequential(nn.Linear(3, 2)))
    with safe_open(path, "pt") as file:
        header = {**file.metadata(), **metadata}
    if architecture is not None:
        header["curvlab.architecture"] = architecture if isinstance(architecture, str) else json.dumps(architecture)
    tensors = load_file(path)
    save_file(tensors, path, header)
    return path


@pytest.mark.parametrize(
    "architecture",
    [
        "not json",
        "[" * 200_000,
        {"version": 1, "network": {"type": "Linear", "arguments": {"in_features": 3, "out_features": 2}}},
        {"version": 1, "network": {"type": "os.system", "arguments": {"command": "touch executed"}}},
        {"version": 1, "network": {"type": "Linear", "arguments": {"in_features": 2**30, "out_features": 2**30}}},
        {"version": 1, "network": {"type": "Sequential", "children": []}},
    ],
    ids=["text", "deep", "other names", "code", "terabytes", "nothing"],
)
def test_descriptions_that_do_not_fit_the_file(architecture: object, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        load(_rewritten(tmp_path / "m", architecture))
    assert "\n" not in str(caught.value)


def test_a_recorded_path_is_not_opened_by_itself(tmp_path: Path) -> None:
    checkpoint = load(_rewritten(tmp_path / "m", **{"curvlab.data": "/etc/passwd", "curvlab.likelihood": "poisson"}))
    assert checkpoint.data is None
    assert checkpoint.likelihood is None
    assert any("'/etc/passwd'" in note for note in checkpoint.notes)


def test_loading_leaves_the_random_state_alone(tmp_path: Path) -> None:
    save(tmp_path / "m", convolutional())
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    load(tmp_path / "m")
    load(tmp_path / "m", architecture=convolutional)
    assert torch.equal(torch.rand(1), expected)
