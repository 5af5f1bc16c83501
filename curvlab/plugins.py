"""Plugins: importing the entry points of a group registers what they bring. Built-ins register in the same way (see
pyproject.toml)."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Plugin:
    """One entry point: its name, the distribution it came with, and the error that kept it out, if any."""

    name: str
    module: str
    distribution: str
    error: str | None = None


@cache
def load(group: str) -> tuple[Plugin, ...]:
    """Import every entry point of `group` once; a plugin that fails is reported in the result and skipped, never
    fatal."""
    loaded = []
    for point in sorted(importlib.metadata.entry_points(group=group), key=lambda p: (p.name != "builtin", p.name)):
        error = None
        try:
            point.load()
        except (Exception, SystemExit) as failure:  # whatever a plugin's module raises must not end a run
            error = f"{type(failure).__name__}: {failure}"
        distribution = f"{point.dist.name} {point.dist.version}" if point.dist else "unknown"
        loaded.append(Plugin(point.name, point.value, distribution, error))
    return tuple(loaded)
