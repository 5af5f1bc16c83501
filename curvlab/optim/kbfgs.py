"""K-BFGS and K-BFGS(L): W̄ ← W̄ − α(H_G m H_A + γW̄), both inverses by BFGS (ren Alg. 9, 10)."""

from __future__ import annotations

from typing import Unpack

from torch import nn

from curvlab.curvatures.kbfgs import Moment
from curvlab.curvatures.pair_damping import PairDamping
from curvlab.optim.quasi_newton import KroneckerQuasiNewton
from curvlab.optim.quasi_newton_settings import QuasiNewtonSettings, completed


class KBFGS(KroneckerQuasiNewton):
    """m ← μm + g per layer, p = H_G m H_A; H_A by the action of the batch's A, H_G by D_P D_LM damped BFGS.

    Every `interval`-th step its batch runs once more, with the weights after the step. No likelihood is needed.

    Args:
        model: the network.
        lr: α; it goes with the damping, as α/λ is the rate of everything that has no inverse.
        damping: λ, any positive number.
        pair_damping: of (s_G, y_G): "powell-lm" is D_P D_LM (Alg. 8); "double" is DD of chapter 2 (Alg. 3), which needs
            λ_G ≤ 1; "powell-identity-lm" is D_P(I) D_LM (Alg. 11).
        moment: "minibatch": A of the batch alone, never formed (eq. 3.15); "averaged": as in chapter 2.
        settings: momentum, weight_decay, decay, mu, interval, skip, double_gradient, groups.
    """

    name = "kbfgs"

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: float = 0.03,
        damping: float = 0.3,
        pair_damping: PairDamping = "powell-lm",
        moment: Moment = "minibatch",
        **settings: Unpack[QuasiNewtonSettings],
    ) -> None:
        super().__init__(
            model,
            lr,
            damping,
            completed(self.name, settings),
            pair_damping=pair_damping,
            moment=moment,
            exact=False,
            pairs=None,
            rebalanced=True,
        )


class KBFGSL(KroneckerQuasiNewton):
    """K-BFGS with H_G by L-BFGS: p pairs in place of a matrix, applied to m by four matrix products.

    Args:
        model: the network.
        lr: α.
        damping: λ.
        pairs: p, remembered of each layer.
        pair_damping: as for `KBFGS`; "powell-identity-lm" with exact=True is the variant whose convergence is proved
            (Alg. 10).
        moment: as for `KBFGS`.
        exact: H_A = (A + λ_A I)⁻¹ in place of BFGS.
        settings: momentum, weight_decay, decay, mu, interval, skip, double_gradient, groups.
    """

    name = "kbfgsl"

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: float = 0.03,
        damping: float = 0.3,
        pairs: int = 100,
        pair_damping: PairDamping = "powell-lm",
        moment: Moment = "minibatch",
        exact: bool = False,
        **settings: Unpack[QuasiNewtonSettings],
    ) -> None:
        super().__init__(
            model,
            lr,
            damping,
            completed(self.name, settings),
            pair_damping=pair_damping,
            moment=moment,
            exact=exact,
            pairs=pairs,
            rebalanced=True,
        )
