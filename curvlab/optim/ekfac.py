"""EKFAC: K-FAC's eigenbasis, second moments of the rotated per-example gradients as eigenvalues (Ren 2022, section
1.1)."""

from __future__ import annotations

from typing import Unpack

from torch import nn

from curvlab.curvatures.ekfac import EkfacCurvature
from curvlab.likelihoods import Likelihood
from curvlab.optim.declared import Damping, Rate
from curvlab.optim.preconditioned import Preconditioned
from curvlab.optim.registry import register
from curvlab.optim.shared import FisherType, McSamples, Shared


@register("ekfac", source="Ren 2022, section 1.1")
class EKFAC(Preconditioned):
    """p = Q (Qᵀ m / (S + λ)), Q = Q_G ⊗ Q_A renewed every T2 steps, S averaged in it every T1.

    Args:
        model: the network.
        likelihood: of its output ("categorical", "bernoulli", "gaussian"); not needed for the empirical Fisher.
        shared: see `Shared`.
    """

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
        super().__init__(
            model,
            EkfacCurvature("exact", "expand", fisher_type, mc_samples),
            likelihood,
            lr,
            damping,
            **shared,
        )
