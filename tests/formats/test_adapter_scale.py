"""α/r of a low-rank update from the adapter_config.json beside its file, which is data and may be hostile."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import curvlab

PREFIX = "base_model.model.model.layers.0.self_attn"
UPDATES = {name: (torch.randn(2, 6), torch.randn(5, 2)) for name in ("q_proj", "v_proj")}


def adapter(folder: Path, name: str = "adapter_model.safetensors", **settings: Any) -> Path:
    tensors = {}
    for layer, (down, up) in UPDATES.items():
        tensors |= {f"{PREFIX}.{layer}.lora_A.weight": down, f"{PREFIX}.{layer}.lora_B.weight": up}
    save_file(tensors, folder / name)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, **settings}))
    return folder / name


def norm(scale: float, layer: str) -> float:
    down, up = UPDATES[layer]
    return scale * torch.linalg.svdvals((up @ down).double())[0].item()


@pytest.mark.parametrize("whole_folder", [False, True])
@pytest.mark.parametrize(
    ("settings", "scales"),
    [
        ({"lora_alpha": 16}, (8.0, 8.0)),
        ({"lora_alpha": 16, "use_rslora": True}, (16 / math.sqrt(2),) * 2),
        ({"lora_alpha": 16, "alpha_pattern": {"v_proj": 3}}, (8.0, 1.5)),
    ],
    ids=["alpha", "rank-stabilised", "pattern"],
)
def test_updates_have_their_scale(
    settings: dict[str, Any], scales: tuple[float, float], whole_folder: bool, tmp_path: Path
) -> None:
    path = adapter(tmp_path, **settings)
    found = curvlab.analyze(curvlab.load(tmp_path if whole_folder else path), analyses=("weights",))
    for layer, scale in zip(UPDATES, scales, strict=True):
        one = found[f"{PREFIX}.{layer}.lora_update"]
        assert one.weights.spectral_norm == pytest.approx(norm(scale, layer), rel=1e-5)
        assert f"alpha/r = {scale:.6g} of adapter_config.json" in one.evidence
        assert (one.weights.rank, one.weights.condition_number) == (2, None)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"lora_alpha": NaN}',
        '{"lora_alpha": 1e300}',
        '{"lora_alpha": "16"}',
        '{"lora_alpha": 16, "lora_alpha": 1}',
        '{"lora_alpha": 16, "alpha_pattern": {"(a+)+$": 1}}',
        "[" * 100_000,
    ],
    ids=["cut", "nan", "huge", "text", "twice", "expression", "deep"],
)
def test_a_file_beside_wrong_settings_is_read_without_a_scale(text: str, tmp_path: Path) -> None:
    path = adapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text(text)
    checkpoint = curvlab.load(path)
    (note,) = [note for note in checkpoint.notes if "the scale of the updates is not known" in note]
    assert "adapter_config.json" in note
    assert all("which is not in the file" in layer.evidence for layer in checkpoint.layers)


def test_settings_elsewhere_are_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    path = adapter(folder, lora_alpha=16)
    (folder / "adapter_config.json").rename(tmp_path / "secret.json")
    (folder / "adapter_config.json").symlink_to(tmp_path / "secret.json")
    checkpoint = curvlab.load(path)
    assert any("a link out of the model's folder" in note for note in checkpoint.notes)
    assert all("which is not in the file" in layer.evidence for layer in checkpoint.layers)


def test_other_files_do_not_look_at_them(tmp_path: Path) -> None:
    adapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{")
    save_file({"fc.weight": torch.randn(3, 2)}, tmp_path / "other.safetensors")
    assert not any("scale" in note for note in curvlab.load(tmp_path / "other.safetensors").notes)
