"""What every K-BFGS method can be told by name, with defaults and bounds (Ren 2022, Alg. 4 and 9)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypedDict

from curvlab.field_types import DECAY, FROM_ONE, Bound
from curvlab.fields import Setting, completed, fields_of
from curvlab.optim.declared import NO_SETTINGS, WeightDecay

Pairs = Annotated[int, Setting("p: pairs (s_G, y_G) remembered of each layer.", FROM_ONE)]


class QuasiNewtonSettings(TypedDict, total=False):
    """Settings that all four methods take by name, with these defaults."""

    momentum: Annotated[float, Setting("β of the gradient's average.", DECAY, default=0.9)]
    weight_decay: WeightDecay
    decay: Annotated[
        float, Setting("β of the averages of s_G and y_G, and of A where it is averaged.", DECAY, default=0.9)
    ]
    mu: Annotated[float, Setting("μ₁ of Powell's damping.", Bound(0.0, 0.999999, above=True), default=0.2)]
    interval: Annotated[
        int,
        Setting("T: steps between updates of the inverses; the first step is one of them.", FROM_ONE, default=1),
    ]
    skip: Annotated[
        bool, Setting("Whether pairs with yᵀHy > sᵀy/μ₁ are left out (Ren 2022, Alg. 5, line 17).", default=False)
    ]
    double_gradient: Annotated[
        bool,
        Setting(
            "Whether the second sample's gradient joins the next step's (Ren 2022, section 2.8.3); needs one a step.",
            when={"interval": (1,)},
            default=False,
        ),
    ]
    groups: Iterable[Mapping[str, Any]] | None


def with_defaults(settings: QuasiNewtonSettings) -> dict[str, Any]:
    """The settings, with defaults for those that were not given."""
    return completed(fields_of(QuasiNewtonSettings, NO_SETTINGS), settings)
