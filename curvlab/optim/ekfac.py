"""EKFAC: K-FAC's eigenbasis, second moments of the rotated per-example gradients as eigenvalues (ren 1.1)."""

from __future__ import annotations

from typing import Unpack

from torch import nn

from curvlab.curvatures.ekfac import EkfacCurvature
from curvlab.likelihoods import Likelihood
from curvlab.optim.preconditioned import Preconditioned
from curvlab.optim.shared import Shared


class EKFAC(Preconditioned):
    """p = Q (Qᵀ m / (S + λ)), Q = Q_G ⊗ Q_A renewed every T2 steps, S averaged in it every T1.

    Args:
        model: the network.
        likelihood: of its output ("categorical", "bernoulli", "gaussian"); not needed for the empirical Fisher.
        lr: α.
        damping: λ.
        fisher_type: targets of the output gradients: "mc" draws them from the model, "empirical" takes the data's (no
            second backward pass), "type-2" the exact expectation by one pass per column of the loss Hessian's root.
        mc_samples: drawn targets per example.
        shared: momentum, weight_decay, decay, averaging, statistics_interval, inverse_interval, seed, groups.
    """

    name = "ekfac"

    def __init__(
        self,
        model: nn.Module,
        likelihood: str | Likelihood | None = None,
        *,
        lr: float = 0.03,
        damping: float = 1e-2,
        fisher_type: str = "mc",
        mc_samples: int = 1,
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
