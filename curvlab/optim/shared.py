"""What every preconditioned optimizer can be told by name: momentum, decay, intervals, averages, seed, groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypedDict

from curvlab.field_types import DECAY, FROM_ONE, SEED
from curvlab.fields import Setting, completed, fields_of
from curvlab.optim.declared import NO_SETTINGS, WeightDecay

Momentum = Annotated[float, Setting("μ of the heavy ball.", DECAY, default=0.9)]
Decay = Annotated[float, Setting("β of the averages of statistics: x ← βx + (1 − β)x_new.", DECAY, default=0.9)]

FisherType = Annotated[
    Literal["mc", "type-2", "empirical"],
    Setting(
        "Targets of the output gradients: mc draws them from the model, empirical takes the data's (no second backward "
        "pass, and no likelihood is needed), type-2 is the exact expectation, by one pass per column of the root of "
        "the loss's Hessian."
    ),
]
McSamples = Annotated[int, Setting("Drawn targets per example.", FROM_ONE, when={"fisher_type": ("mc",)})]
LargestMode = Annotated[
    int,
    Setting("A tensor with a longer mode (an embedding's words) has no factors and follows the heavy ball.", FROM_ONE),
]


class Shared(TypedDict, total=False):
    """Settings that every preconditioned optimizer takes by name, with these defaults."""

    momentum: Momentum
    weight_decay: WeightDecay
    decay: Decay
    averaging: Annotated[
        Literal["constant", "growing"],
        Setting(
            "constant β, or growing: min(1 − 1/k, β) at the k-th update (Grosse 2021, section 5).", default="constant"
        ),
    ]
    statistics_interval: Annotated[int, Setting("T1: steps between updates of the statistics.", FROM_ONE, default=1)]
    inverse_interval: Annotated[
        int,
        Setting(
            "T2: steps between renewals of the operators. On each of the first T2 steps they are renewed whenever the "
            "statistics were (Ren 2022, Alg. 7, line 10), as averages change most at the start; Shampoo and the block "
            "Fisher leave this out.",
            FROM_ONE,
            default=20,
        ),
    ]
    seed: Annotated[int, Setting("Seed of the pseudo-targets.", SEED, default=0)]
    groups: Iterable[Mapping[str, Any]] | None


SCHEDULE = ("decay", "averaging", "statistics_interval", "inverse_interval", "seed")
"""Settings of the optimizer as a whole; a parameter group cannot change them."""


def with_defaults(shared: Shared) -> dict[str, Any]:
    """The settings, with defaults for those that were not given."""
    return completed(fields_of(Shared, NO_SETTINGS), shared)
