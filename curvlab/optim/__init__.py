"""The optimizers, as `torch.optim.Optimizer`s on one core, by class and by name: `create("kfac", model, ...)`.

An optimizer of a package registers with `@register("mine")`, in a module that the entry-point group
`curvlab.optimizers` names.
"""

from __future__ import annotations

import curvlab.optim.builtin  # noqa: F401 - first: the order of tables is its own
from curvlab.optim.adam import Adam
from curvlab.optim.adamw import AdamW
from curvlab.optim.block_fisher import BlockFisher
from curvlab.optim.ekfac import EKFAC
from curvlab.optim.fop.fop import FOP
from curvlab.optim.fop.hypergradient_descent import HypergradientDescent, ParameterwiseHypergradientDescent
from curvlab.optim.kbfgs.kbfgs import KBFGS, KBFGSL
from curvlab.optim.kbfgs.kbfgs20 import KBFGS20, KBFGSL20
from curvlab.optim.kfac import KFAC
from curvlab.optim.lnb.lnb import LNB
from curvlab.optim.muon import Muon
from curvlab.optim.registry import OPTIMIZERS, create, register
from curvlab.optim.rmsprop import RMSprop
from curvlab.optim.sgd import SGD
from curvlab.optim.shampoo import Shampoo
from curvlab.optim.tnt import TNT

__all__ = [
    "EKFAC",
    "FOP",
    "KBFGS",
    "KBFGS20",
    "KBFGSL",
    "KBFGSL20",
    "KFAC",
    "LNB",
    "OPTIMIZERS",
    "SGD",
    "TNT",
    "Adam",
    "AdamW",
    "BlockFisher",
    "HypergradientDescent",
    "Muon",
    "ParameterwiseHypergradientDescent",
    "RMSprop",
    "Shampoo",
    "create",
    "register",
]
