"""The analyses curvlab brings, in the order of their columns: importing this registers them, as plugins do theirs."""

from __future__ import annotations

import importlib

ORDER = ("weights", "moments", "kfac", "tnt", "fop", "quantisation")

for _name in ORDER:
    importlib.import_module(f"curvlab.analyses.{_name}")

# After those with columns of their own, which keep their names.
importlib.import_module("curvlab.analyses.of_curvature").follow()
