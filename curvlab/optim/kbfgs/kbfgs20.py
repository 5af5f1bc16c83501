"""K-BFGS-20 and K-BFGS(L)-20: W̄ ← W̄ − α(H_G ĝ H_A + γW̄) with ĝ ← βĝ + (1 − β)g (Ren 2022, Alg. 4, 5)."""

from __future__ import annotations

from typing import Annotated, Unpack

from torch import nn

from curvlab.field_types import Bound
from curvlab.fields import Setting
from curvlab.optim.declared import Rate
from curvlab.optim.kbfgs.quasi_newton import KroneckerQuasiNewton
from curvlab.optim.kbfgs.settings import Pairs, QuasiNewtonSettings, with_defaults
from curvlab.optim.registry import register

Lambda = Annotated[
    float,
    Setting(
        "λ, λ_A = λ_G = √λ; μ₂ = √λ is a share in double damping (Ren 2022, section 2.3.1).",
        Bound(0.0, 1.0, above=True),
    ),
]


@register("kbfgs-20", source="Ren 2022, Alg. 4")
class KBFGS20(KroneckerQuasiNewton):
    """ĝ ← βĝ + (1 − β)g per layer, p = H_G ĝ H_A; H_A by the action of the averaged A, H_G by doubly damped BFGS.

    Every step runs its batch once more, with the weights after the step. No likelihood is needed.

    Args:
        model: the network.
        settings: see `QuasiNewtonSettings`.
    """

    averages_gradient = True

    def __init__(
        self, model: nn.Module, *, lr: Rate = 0.1, damping: Lambda = 0.1, **settings: Unpack[QuasiNewtonSettings]
    ) -> None:
        super().__init__(
            model,
            lr,
            damping,
            with_defaults(settings),
            pair_damping="double",
            moment="averaged",
            exact=False,
            pairs=None,
            rebalanced=False,
        )


@register("kbfgsl-20", source="Ren 2022, Alg. 5")
class KBFGSL20(KroneckerQuasiNewton):
    """K-BFGS-20 with H_G by L-BFGS.

    Args:
        model: the network.
        settings: see `QuasiNewtonSettings`.
    """

    averages_gradient = True

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: Rate = 0.1,
        damping: Lambda = 0.1,
        pairs: Pairs = 100,
        exact: Annotated[
            bool,
            Setting("H_A = (A + λ_A I)⁻¹ in place of BFGS; with skip the variant proved to converge (Alg. 5)."),
        ] = False,
        **settings: Unpack[QuasiNewtonSettings],
    ) -> None:
        super().__init__(
            model,
            lr,
            damping,
            with_defaults(settings),
            pair_damping="double",
            moment="averaged",
            exact=exact,
            pairs=pairs,
            rebalanced=False,
        )
