"""All formats: curvlab's own, and those of packages that declare an entry point of the group `curvlab.formats`."""

from __future__ import annotations

from collections.abc import Mapping

from curvlab.formats.format import Format, registered
from curvlab.plugins import Plugin, load


def formats() -> Mapping[str, Format]:
    """Every format by its name, in the order in which they are asked."""
    load_formats()
    return registered()


def load_formats() -> tuple[Plugin, ...]:
    """Import whatever registers formats; a plugin that fails is reported in the result and skipped."""
    import curvlab.formats.builtin  # noqa: F401 - also there when curvlab runs without installed metadata

    return load("curvlab.formats")
