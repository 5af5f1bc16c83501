"""A safetensors file is one whatever the length of its header: some lengths begin with the bytes of a pickle."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from curvlab.formats.load import load


@pytest.mark.parametrize("length", [640, 896, 1152, 1408])
def test_headers_that_begin_like_a_pickle(tmp_path: Path, length: int) -> None:
    path = tmp_path / "model.safetensors"
    for filler in range(length):
        save_file({"fc.weight": torch.ones(2, 3)}, path, metadata={"note": "x" * filler})
        if int.from_bytes(path.read_bytes()[:8], "little") == length:
            break
    else:
        pytest.fail(f"no header of {length} bytes could be made")
    assert load(path).format == "safetensors"
