"""An optimizer of any registered curvature: p = P m with P its damped inverse."""

from __future__ import annotations

from typing import Unpack

from torch import nn

from curvlab.curvatures.curvature import Curvature
from curvlab.curvatures.registry import CURVATURES
from curvlab.likelihoods import Likelihood
from curvlab.optim.declared import Damping, Params, Rate
from curvlab.optim.preconditioned import Preconditioned
from curvlab.optim.registry import OPTIMIZERS, register
from curvlab.optim.shared import FisherType, McSamples, Shared


def optimizer_of(kind: type[Curvature]) -> type[Preconditioned]:
    """The class of the optimizer that preconditions with a recipe, with the settings that all of them have."""

    class OfGradient(Preconditioned):
        takes_parameters = True

        def __init__(
            self,
            model: nn.Module | Params,
            likelihood: str | Likelihood | None = None,
            *,
            lr: Rate = 0.03,
            damping: Damping = 1e-2,
            **shared: Unpack[Shared],
        ) -> None:
            super().__init__(model, kind(), likelihood, lr, damping, **shared)

    class OfOutputs(Preconditioned):
        def __init__(
            self,
            model: nn.Module,
            likelihood: str | Likelihood | None = None,
            *,
            lr: Rate = 0.03,
            damping: Damping = 1e-2,
            fisher_type: FisherType = "mc",
            mc_samples: McSamples = 1,
            **shared: Unpack[Shared],
        ) -> None:
            curvature = kind()
            curvature.fisher_type, curvature.mc_samples = fisher_type, mc_samples
            super().__init__(model, curvature, likelihood, lr, damping, **shared)

    made: type[Preconditioned] = OfGradient if kind.of_gradient else OfOutputs
    made.__doc__ = kind.__doc__ or kind.help
    made.__module__, made.__qualname__ = kind.__module__, f"{kind.__qualname__}Optimizer"
    return made


def _follow(name: str, kind: type[Curvature]) -> None:
    if not OPTIMIZERS.knows(name):
        register(name, source=kind.source)(optimizer_of(kind))


def follow() -> None:
    """From now on every registered curvature is an optimizer, unless one has its name already."""
    CURVATURES.follow(_follow)
    CURVATURES.plugins()
