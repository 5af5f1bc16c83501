"""Memory that this process may still take: what the system has free, within the limit of its control group."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from curvlab.data.budget import physical_memory

SHARE = 0.7
"""Share of the free memory that is used when no limit is given: estimates are within a quarter."""
CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
"""Limit and use of version 2 and of version 1, as a container sees its own."""


def free_memory(device: torch.device) -> int:
    """Bytes that could be allocated on the device now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = [_available(), *(limit - used for limit, used in map(_limits, CGROUPS) if limit is not None)]
    return max(0, min(free))


def held_memory(device: torch.device) -> int:
    """Bytes that this process holds there now."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    pages = _text("/proc/self/statm").split()
    if len(pages) > 1:
        return int(pages[1]) * os.sysconf("SC_PAGE_SIZE")
    try:
        import resource
    except ImportError:  # Windows
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def _available() -> int:
    for line in _text("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    return physical_memory()


def _limits(names: tuple[str, str]) -> tuple[int | None, int]:
    """(limit, used) of a control group, without cached files, which it would give back; no limit where it has none."""
    limit, used = (_text(name).strip() for name in names)
    if not limit.isdigit() or not used.isdigit():
        return None, 0
    statistics = _text(str(Path(names[1]).parent / "memory.stat")).splitlines()
    cached = next(
        (int(line.split()[1]) for line in statistics if line.startswith(("inactive_file ", "total_inactive_file "))), 0
    )
    return int(limit), max(0, int(used) - cached)


def _text(name: str) -> str:
    try:
        return Path(name).read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
