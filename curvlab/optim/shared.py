"""What every preconditioned optimizer can be told by name: momentum, decay, intervals, averages, seed, groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

from curvlab.errors import CurvlabError
from curvlab.optim.hyperparameters import DECAY, INTERVAL, POSITIVE, RATE, Bound


class Shared(TypedDict, total=False):
    """Settings that every preconditioned optimizer takes by name, with these defaults.

    Attributes:
        momentum: μ = 0.9 of the heavy ball.
        weight_decay: γ = 0, decoupled.
        decay: β = 0.9 of the averages of statistics: x ← βx + (1 − β)x_new.
        averaging: "constant" β, or "growing": min(1 − 1/k, β) at the k-th update (grosse section 5).
        statistics_interval: T1 = 1 step between updates of the statistics.
        inverse_interval: T2 = 20 steps between renewals of the operators; on each of the first T2 steps they are
            renewed whenever the statistics were (ren Alg. 7, line 10), as averages change most at the start; Shampoo
            and the block Fisher leave this out.
        seed: 0, of the pseudo-targets.
        groups: parameter groups with lr, damping, momentum or weight_decay of their own; None.
    """

    momentum: float
    weight_decay: float
    decay: float
    averaging: str
    statistics_interval: int
    inverse_interval: int
    seed: int
    groups: Iterable[Mapping[str, Any]] | None


DEFAULTS: dict[str, Any] = {
    "momentum": 0.9,
    "weight_decay": 0.0,
    "decay": 0.9,
    "averaging": "constant",
    "statistics_interval": 1,
    "inverse_interval": 20,
    "seed": 0,
}
SCHEDULE = ("decay", "averaging", "statistics_interval", "inverse_interval", "seed")
"""Those that are of the optimizer as a whole, not of a parameter group."""

BOUNDS: dict[str, Bound] = {
    "lr": RATE,
    "momentum": DECAY,
    "weight_decay": RATE,
    "damping": POSITIVE,
    "decay": DECAY,
    "averaging": Bound(choices=("constant", "growing")),
    "statistics_interval": INTERVAL,
    "inverse_interval": INTERVAL,
    "seed": Bound(whole=True),
    "fisher_type": Bound(choices=("mc", "type-2", "empirical")),
    "mc_samples": INTERVAL,
}


def completed(optimizer: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with defaults for those that were not given.

    Raises:
        CurvlabError: there is no such setting.
    """
    unknown = sorted(set(given) - {*Shared.__annotations__})
    if unknown:
        known = ", ".join(Shared.__annotations__)
        raise CurvlabError(f"{optimizer} has no setting {unknown[0]!r}", "", f"there are {known}")
    return {**DEFAULTS, **given}
