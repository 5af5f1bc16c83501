"""Importing this registers the built-in optimizers, as a plugin's import does; tables list them in this order."""

from __future__ import annotations

import importlib

from curvlab.registry import import_room

ORDER = (
    "sgd",
    "adam",
    "adamw",
    "rmsprop",
    "muon",
    "kfac",
    "ekfac",
    "tnt",
    "shampoo",
    "block_fisher",
    "kbfgs.kbfgs20",
    "kbfgs.kbfgs",
    "lnb.lnb",
    "fop.fop",
    "fop.hypergradient_descent",
)
"""Those whose things come first; every other module follows by name."""

import_room("curvlab.optim", ORDER)

# After those with settings of their own, which keep their names.
importlib.import_module("curvlab.optim.from_curvature").follow()
