"""The analyses curvlab brings, in the order of their columns: importing this registers them, as plugins do theirs."""

from __future__ import annotations

import importlib

from curvlab.registry import import_room

ORDER = ("weights", "moments", "kfac", "tnt", "fop", "quantisation")
"""Those whose things come first; every other module follows by name."""

import_room("curvlab.analyses", ORDER)

# After those with columns of their own, which keep their names.
importlib.import_module("curvlab.analyses.of_curvature").follow()
