"""K-BFGS-20 and K-BFGS(L)-20: W̄ ← W̄ − α(H_G ĝ H_A + γW̄) with ĝ ← βĝ + (1 − β)g (ren Alg. 4, 5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Unpack

from torch import nn

from curvlab.optim.hyperparameters import Bound
from curvlab.optim.quasi_newton import KroneckerQuasiNewton
from curvlab.optim.quasi_newton_settings import BOUNDS, QuasiNewtonSettings, completed

_BOUNDS = {**BOUNDS, "damping": Bound(high=1.0, above=True)}
"""μ₂ = √λ is a share in double damping (ren 2.3.1)."""


class KBFGS20(KroneckerQuasiNewton):
    """ĝ ← βĝ + (1 − β)g per layer, p = H_G ĝ H_A; H_A by the action of the averaged A, H_G by doubly damped BFGS.

    Every step runs its batch once more, with the weights after the step. No likelihood is needed.

    Args:
        model: the network.
        lr: α.
        damping: λ ≤ 1; λ_A = λ_G = √λ.
        settings: momentum, weight_decay, decay, mu, interval, skip, double_gradient, groups.
    """

    name = "kbfgs-20"
    bounds: ClassVar[Mapping[str, Bound]] = _BOUNDS
    averages_gradient = True

    def __init__(
        self, model: nn.Module, *, lr: float = 0.1, damping: float = 0.1, **settings: Unpack[QuasiNewtonSettings]
    ) -> None:
        super().__init__(
            model,
            lr,
            damping,
            completed(self.name, settings),
            pair_damping="double",
            moment="averaged",
            exact=False,
            pairs=None,
            rebalanced=False,
        )


class KBFGSL20(KroneckerQuasiNewton):
    """K-BFGS-20 with H_G by L-BFGS.

    Args:
        model: the network.
        lr: α.
        damping: λ ≤ 1.
        pairs: p, remembered of each layer.
        exact: H_A = (A + λ_A I)⁻¹ in place of BFGS; with skip=True the variant whose convergence is proved (Alg. 5).
        settings: momentum, weight_decay, decay, mu, interval, skip, double_gradient, groups.
    """

    name = "kbfgsl-20"
    bounds: ClassVar[Mapping[str, Bound]] = _BOUNDS
    averages_gradient = True

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: float = 0.1,
        damping: float = 0.1,
        pairs: int = 100,
        exact: bool = False,
        **settings: Unpack[QuasiNewtonSettings],
    ) -> None:
        super().__init__(
            model,
            lr,
            damping,
            completed(self.name, settings),
            pair_damping="double",
            moment="averaged",
            exact=exact,
            pairs=pairs,
            rebalanced=False,
        )
