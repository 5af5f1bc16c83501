"""K-FAC: W̄ ← W̄ − α((G + …)⁻¹ m (A + …)⁻¹ + γW̄) (grosse Alg. 1; ren Alg. 7, 12)."""

from __future__ import annotations

from typing import Unpack

from torch import nn

from curvlab.curvatures.kfac import DampingRule, KfacCurvature
from curvlab.likelihoods import Likelihood
from curvlab.optim.preconditioned import Preconditioned
from curvlab.optim.shared import Shared


class KFAC(Preconditioned):
    """m ← μm + g per layer, p = (G ⊗ A + damping)⁻¹ m; layers that are no dense maps follow m.

    Args:
        model: the network.
        likelihood: of its output ("categorical", "bernoulli", "gaussian"); not needed when `empirical`.
        lr: α.
        damping: λ.
        rule: how λ enters: "factored" with π (eq. 24), "exact" in the eigenbasis (eq. 23), "equal" (π = 1, ren Alg. 7).
        kfac_approx: "expand" or "reduce" over positions.
        empirical: the data's targets instead of drawn ones (KFAC-EF): no second backward.
        shared: momentum, weight_decay, decay, averaging, statistics_interval, inverse_interval, seed, groups.
    """

    name = "kfac"

    def __init__(
        self,
        model: nn.Module,
        likelihood: str | Likelihood | None = None,
        *,
        lr: float = 0.03,
        damping: float = 1e-2,
        rule: DampingRule = "factored",
        kfac_approx: str = "expand",
        empirical: bool = False,
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(
            model,
            KfacCurvature(rule, kfac_approx, "data" if empirical else "pseudo"),
            likelihood,
            lr,
            damping,
            **shared,
        )
