"""Adapter folders as PEFT writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

LORA = {"peft_type": "LORA", "r": 3, "lora_alpha": 6, "base_model_name_or_path": "someone/somewhere"}


def adapter(place: Path, tensors: Mapping[str, Tensor], **settings: Any) -> Path:
    """The two files of an adapter; names without PEFT's prefix."""
    place.mkdir(parents=True, exist_ok=True)
    (place / "adapter_config.json").write_text(json.dumps({**LORA, **settings}))
    save_file(
        {f"base_model.model.{name}": tensor for name, tensor in tensors.items()}, place / "adapter_model.safetensors"
    )
    return place


def low_rank(layer: str, rows: int, columns: int, rank: int = 3, seed: int = 0) -> dict[str, Tensor]:
    """A (r, columns) and B (rows, r) of one layer."""
    generator = torch.Generator().manual_seed(seed)
    down, up = torch.randn(rank, columns, generator=generator), torch.randn(rows, rank, generator=generator)
    return {f"{layer}.lora_A.weight": down / 4, f"{layer}.lora_B.weight": up / 4}
