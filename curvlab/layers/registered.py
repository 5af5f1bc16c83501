"""`load_layers`: imports every package that registers layer adapters."""

from __future__ import annotations

from curvlab.plugins import Plugin, load


def load_layers() -> tuple[Plugin, ...]:
    """Register every layer adapter: `curvlab.layers` entry points, the built-in ones among them."""
    import curvlab.layers.builtin  # noqa: F401 - also there when curvlab runs from a folder without installed metadata

    return load("curvlab.layers")
