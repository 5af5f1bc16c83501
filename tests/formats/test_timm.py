"""Networks of timm from its own kind of directory; run by `make test-timm`, in an environment where timm imports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import curvlab
from curvlab.formats.load import load

try:
    import timm
except Exception as error:  # a torchvision that was built for another torch fails in many ways
    pytest.skip(f"timm cannot be imported here: {error}", allow_module_level=True)


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224", "mobilenetv3_small_050"])
def test_a_directory_and_a_name(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = timm.create_model(name, pretrained=False, num_classes=7).eval()
    save_file(module.state_dict(), tmp_path / "model.safetensors")
    config = {"architecture": name, "num_classes": 7, "pretrained_cfg": {"num_classes": 7}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    side = 224 if name.startswith("vit") else 64
    x = torch.randn(2, 3, side, side)
    for checkpoint in (load(tmp_path), load(tmp_path / "model.safetensors", architecture=f"timm:{name}")):
        assert checkpoint.architecture == f"timm:{name}"
        assert checkpoint.module is not None
        with torch.no_grad():
            assert torch.equal(checkpoint.module(x), module(x))
    analysis = curvlab.analyze(checkpoint, (x, torch.tensor([0, 1])), analyses=("weights", "moments"))
    assert analysis.coverage.analyzed > 0.9 * analysis.coverage.parameters
