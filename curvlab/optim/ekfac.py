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
        likelihood: of its output ("categorical", "bernoulli", "gaussian"); not needed when `empirical`.
        lr: α.
        damping: λ.
        empirical: the data's targets instead of drawn ones.
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
        empirical: bool = False,
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(
            model,
            EkfacCurvature("exact", "expand", "data" if empirical else "pseudo"),
            likelihood,
            lr,
            damping,
            **shared,
        )
