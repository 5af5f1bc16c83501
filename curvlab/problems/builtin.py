"""Importing this registers the built-in problems, as a plugin's import does; those on embedded data come first."""

from __future__ import annotations

from curvlab.registry import import_room

ORDER = (
    "digits",
    "tables",
    "factorisation",
    "wide_digits",
    "convolutions",
    "transformers",
    "segmentation",
    "autoencoders",
    "mnist",
    "fashion",
)
"""Those whose things come first; every other module follows by name."""

import_room("curvlab.problems", ORDER)
