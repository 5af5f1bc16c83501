"""Shapes in this package's annotations become run-time checks, before it is imported."""

from __future__ import annotations

from jaxtyping import install_import_hook

install_import_hook("curvlab_attention", "beartype.beartype")
