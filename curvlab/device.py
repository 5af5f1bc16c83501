"""`pick_device`: the device that a name stands for, if this machine has it."""

from __future__ import annotations

import torch

from curvlab.errors import CurvlabError


def pick_device(name: str) -> torch.device:
    """The device of a name; "auto" takes cuda, then mps, then cpu.

    Raises:
        CurvlabError: the device is not there.
    """
    has_mps = torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu")
    device = torch.device(name)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = device.index or 0
    if (device.type == "cuda" and index >= count) or (device.type == "mps" and not has_mps):
        last = f"its last CUDA device is cuda:{count - 1}" if count and device.type == "cuda" else ""
        raise CurvlabError(f"there is no device {name!r} on this machine", last, "use --device auto")
    return device
