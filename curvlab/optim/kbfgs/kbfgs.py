"""K-BFGS and K-BFGS(L): W̄ ← W̄ − α(H_G m H_A + γW̄), both inverses by BFGS (Ren 2022, Alg. 9, 10)."""

from __future__ import annotations

from typing import Annotated, Unpack

from torch import nn

from curvlab.field_types import FROM_ZERO
from curvlab.fields import Setting
from curvlab.optim.declared import Damping
from curvlab.optim.kbfgs.pair_damping import PairDamping
from curvlab.optim.kbfgs.quasi_newton import KroneckerQuasiNewton
from curvlab.optim.kbfgs.recipe import Moment
from curvlab.optim.kbfgs.settings import Pairs, QuasiNewtonSettings, with_defaults
from curvlab.optim.registry import register

KbfgsRate = Annotated[
    float, Setting("α. It goes with the damping: α/λ is the rate of everything that has no inverse.", FROM_ZERO)
]
OfPairs = Annotated[
    PairDamping,
    Setting(
        "Damping of (s_G, y_G): powell-lm is D_P D_LM (Ren 2022, Alg. 8); double is DD (Alg. 3), which needs λ_G ≤ 1; "
        "powell-identity-lm is D_P(I) D_LM (Alg. 11), with exact the variant whose convergence is proved (Alg. 10)."
    ),
]
OfInputs = Annotated[
    Moment, Setting("minibatch: A of the batch alone, never formed (Ren 2022, eq. 3.15); averaged: as in chapter 2.")
]


@register("kbfgs", source="Ren 2022, Alg. 9")
class KBFGS(KroneckerQuasiNewton):
    """m ← μm + g per layer, p = H_G m H_A; H_A by the action of the batch's A, H_G by D_P D_LM damped BFGS.

    Every `interval`-th step its batch runs once more, with the weights after the step. No likelihood is needed.

    Args:
        model: the network.
        settings: see `QuasiNewtonSettings`.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: KbfgsRate = 0.03,
        damping: Damping = 0.3,
        pair_damping: OfPairs = "powell-lm",
        moment: OfInputs = "minibatch",
        **settings: Unpack[QuasiNewtonSettings],
    ) -> None:
        super().__init__(
            model,
            lr,
            damping,
            with_defaults(settings),
            pair_damping=pair_damping,
            moment=moment,
            exact=False,
            pairs=None,
            rebalanced=True,
        )


@register("kbfgsl", source="Ren 2022, Alg. 10")
class KBFGSL(KroneckerQuasiNewton):
    """K-BFGS with H_G by L-BFGS: p pairs in place of a matrix, applied to m by four matrix products.

    Args:
        model: the network.
        settings: see `QuasiNewtonSettings`.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: KbfgsRate = 0.03,
        damping: Damping = 0.3,
        pairs: Pairs = 100,
        pair_damping: OfPairs = "powell-lm",
        moment: OfInputs = "minibatch",
        exact: Annotated[bool, Setting("H_A = (A + λ_A I)⁻¹ in place of BFGS.")] = False,
        **settings: Unpack[QuasiNewtonSettings],
    ) -> None:
        super().__init__(
            model,
            lr,
            damping,
            with_defaults(settings),
            pair_damping=pair_damping,
            moment=moment,
            exact=exact,
            pairs=pairs,
            rebalanced=True,
        )
