"""Provenance: the machine and the versions a result came from."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

import torch


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, platform, threads and device, as plain values."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "processor": platform.machine(),
        "device": str(device)
        if device.type == "cpu"
        else torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else str(device),
        "threads": torch.get_num_threads(),
        "curvlab": importlib.metadata.version("curvlab"),
    }
