"""Provenance: the machine and the versions a result came from."""

from __future__ import annotations

import platform
from typing import Any

import torch

import curvlab


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
        "curvlab": curvlab.__version__,
    }


def pick_device(name: str) -> torch.device:
    """The device of a name; "auto" takes cuda, then mps, then cpu.

    Raises:
        CurvlabError: the device is not there.
    """
    from curvlab.errors import CurvlabError

    has_mps = torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu")
    device = torch.device(name)
    missing = (device.type == "cuda" and not torch.cuda.is_available()) or (device.type == "mps" and not has_mps)
    if missing:
        raise CurvlabError(f"there is no device {name!r} on this machine", "", "use --device auto")
    return device
