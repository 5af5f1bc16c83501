"""curvlab's own files of networks that are not of torch's layers: callables and registered builders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from curvlab.errors import CheckpointError
from curvlab.formats.curvlab_file.builders import register_builder
from curvlab.formats.curvlab_file.file import save
from curvlab.formats.load import load


class Mine(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.fc(x))


def test_a_class_of_ones_own_needs_its_callable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match=r"architecture=\"package\.module:callable\""):
        save(tmp_path / "m", Mine())
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine_for_own_files.py").write_text(
        "import pathlib, torch\n"
        "pathlib.Path('executed').touch()\n"
        "class Mine(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.fc = torch.nn.Linear(3, 2)\n"
        "    def forward(self, x):\n"
        "        return torch.relu(self.fc(x))\n"
    )
    monkeypatch.chdir(tmp_path)
    module = Mine()
    save("m", module, architecture="mine_for_own_files:Mine")
    checkpoint = load("m")
    assert checkpoint.module is None
    assert not Path("executed").exists()
    assert any("--architecture 'mine_for_own_files:Mine'" in note for note in checkpoint.notes)
    trusted = load("m", trust=True)
    assert Path("executed").exists()
    assert trusted.architecture == "mine_for_own_files:Mine"
    x = torch.randn(4, 3)
    assert trusted.module is not None
    assert torch.equal(trusted.module(x), module(x))
    explicit = load("m", architecture="mine_for_own_files:Mine")
    assert explicit.module is not None


def test_a_registered_builder(tmp_path: Path) -> None:
    register_builder("test-own-mine", lambda: Mine())
    module = Mine()
    save(tmp_path / "m", module, architecture={"builder": "test-own-mine"})
    again = load(tmp_path / "m").module
    assert isinstance(again, Mine)
    assert torch.equal(again.fc.weight, module.fc.weight)


class Positioned(nn.Module):
    """With a tensor that no file stores."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.register_buffer("position", torch.arange(3.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.fc(x + self.position)
        return result


def test_a_builder_with_tensors_that_are_not_stored(tmp_path: Path) -> None:
    register_builder("test-own-positioned", Positioned)
    module, x = Positioned(), torch.randn(4, 3)
    save(tmp_path / "m", module, architecture={"builder": "test-own-positioned"})
    again = load(tmp_path / "m").module
    assert again is not None
    assert torch.equal(again(x), module(x))


@pytest.mark.parametrize(
    "description",
    [
        {"version": 99},
        {"version": 1, "network": {"type": "Linear", "arguments": {"in_features": 3, "out_features": 9}}},
    ],
    ids=["of another version", "of other shapes"],
)
def test_who_only_has_the_file_is_told_what_to_do(tmp_path: Path, description: dict[str, object]) -> None:
    save(tmp_path / "m", nn.Linear(3, 2))
    with safe_open(tmp_path / "m", "pt") as file:
        metadata = {**file.metadata(), "curvlab.architecture": json.dumps(description)}
    save_file(load_file(tmp_path / "m"), tmp_path / "n", metadata)
    with pytest.raises(CheckpointError, match=r"; give --architecture package\.module:callable, or get the"):
        load(tmp_path / "n")
    assert load(tmp_path / "n", architecture=lambda: nn.Linear(3, 2)).module is not None


def test_an_unregistered_builder_leaves_the_weights(tmp_path: Path) -> None:
    save(tmp_path / "m", Mine(), architecture="somewhere:Mine")
    tensors = load_file(tmp_path / "m")
    with safe_open(tmp_path / "m", "pt") as file:
        metadata = file.metadata()
    metadata["curvlab.architecture"] = '{"version": 1, "builder": "nobody-registered-this"}'
    save_file(tensors, tmp_path / "n", metadata)
    checkpoint = load(tmp_path / "n")
    assert checkpoint.module is None
    assert any("no builder is named 'nobody-registered-this'" in note for note in checkpoint.notes)


def test_a_wrong_builder_is_refused_when_saving(tmp_path: Path) -> None:
    register_builder("test-own-other", lambda: nn.Linear(1, 1))
    with pytest.raises(CheckpointError, match="are not those that the recorded architecture makes"):
        save(tmp_path / "m", Mine(), architecture={"builder": "test-own-other"})
