"""Optimizers by name: `create("kfac", model, likelihood="categorical", lr=0.03)`."""

from __future__ import annotations

import difflib
import inspect
from typing import Any

from torch import nn

from curvlab.errors import CurvlabError
from curvlab.likelihoods import Likelihood
from curvlab.optim.adam import Adam
from curvlab.optim.block_fisher import BlockFisher
from curvlab.optim.core import Optimizer
from curvlab.optim.ekfac import EKFAC
from curvlab.optim.fop import FOP
from curvlab.optim.hypergradient import HypergradientOptimizer, HypergradientSettings
from curvlab.optim.hypergradient_descent import HypergradientDescent, ParameterwiseHypergradientDescent
from curvlab.optim.kbfgs import KBFGS, KBFGSL
from curvlab.optim.kbfgs20 import KBFGS20, KBFGSL20
from curvlab.optim.kfac import KFAC
from curvlab.optim.lnb import LNB
from curvlab.optim.preconditioned import Preconditioned
from curvlab.optim.quasi_newton import KroneckerQuasiNewton
from curvlab.optim.quasi_newton_settings import QuasiNewtonSettings
from curvlab.optim.rmsprop import RMSprop
from curvlab.optim.sgd import SGD
from curvlab.optim.shampoo import Shampoo
from curvlab.optim.shared import Shared
from curvlab.optim.tnt import TNT

OPTIMIZERS: dict[str, type[Optimizer]] = {
    made.name: made
    for made in (
        SGD,
        Adam,
        RMSprop,
        KFAC,
        EKFAC,
        TNT,
        Shampoo,
        BlockFisher,
        KBFGS20,
        KBFGSL20,
        KBFGS,
        KBFGSL,
        LNB,
        FOP,
        HypergradientDescent,
        ParameterwiseHypergradientDescent,
    )
}


def create(name: str, model: nn.Module, *, likelihood: str | Likelihood | None = None, **settings: Any) -> Optimizer:
    """The optimizer of a name with settings by name.

    Args:
        name: a key of `OPTIMIZERS`.
        model: the network.
        likelihood: of its output; ignored by methods that need gradients alone.
        settings: its constructor's.

    Raises:
        CurvlabError: no optimizer has that name, or no such setting.
    """
    if name not in OPTIMIZERS:
        close = difflib.get_close_matches(name, OPTIMIZERS, n=1)
        do = f"did you mean {close[0]!r}" if close else f"there are {', '.join(OPTIMIZERS)}"
        raise CurvlabError(f"there is no optimizer {name!r}", "", do)
    kind: Any = OPTIMIZERS[name]
    known = set(inspect.signature(kind).parameters) - {"model", "likelihood", "shared", "settings"}
    if issubclass(kind, Preconditioned):
        known |= set(Shared.__annotations__)
        settings = {"likelihood": likelihood, **settings}
    if issubclass(kind, HypergradientOptimizer):
        known |= set(HypergradientSettings.__annotations__)
    if issubclass(kind, KroneckerQuasiNewton):
        known |= set(QuasiNewtonSettings.__annotations__)
    unknown = sorted(set(settings) - known - {"likelihood"})
    if unknown:
        raise CurvlabError(f"{name} has no setting {unknown[0]!r}", "", f"there are {', '.join(sorted(known))}")
    made: Optimizer = kind(model, **settings)
    return made
