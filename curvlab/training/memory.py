"""Memory: the peak of this process and of the device that it computes on, and the bytes of a saved state."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def peak_memory() -> int | None:
    """Most bytes of this process that were ever in memory at once; None where the system does not say.

    Linux's VmHWM begins with the process; `ru_maxrss` would begin with the process that started it.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def peak_device_memory(device: torch.device) -> int | None:
    """Most bytes that CUDA's allocator held at once; None on other devices."""
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else None


def state_bytes(value: Any) -> int:
    """Σ numel · itemsize over the tensors in a `state_dict`, however deep in mappings and sequences they are."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Mapping):
        return sum(state_bytes(one) for one in value.values())
    return sum(state_bytes(one) for one in value) if isinstance(value, list | tuple) else 0
