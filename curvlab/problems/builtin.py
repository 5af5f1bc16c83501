"""Importing this registers the built-in problems, as a plugin's import does; those on embedded data come first."""

from __future__ import annotations

import importlib

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

for _name in ORDER:
    importlib.import_module(f"curvlab.problems.{_name}")
