"""What every K-BFGS method can be told by name, with defaults and bounds (ren Alg. 4 and 9)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

from curvlab.errors import CurvlabError
from curvlab.optim.hyperparameters import DECAY, INTERVAL, POSITIVE, RATE, Bound


class QuasiNewtonSettings(TypedDict, total=False):
    """Settings that all four methods take by name, with these defaults.

    Attributes:
        momentum: β = 0.9 of the gradient's average.
        weight_decay: γ = 0, decoupled.
        decay: β = 0.9 of the averages of s_G and y_G, and of A where it is averaged.
        mu: μ₁ = 0.2 of Powell's damping.
        interval: T = 1 step between updates of the inverses; the first step is one of them.
        skip: false; whether pairs with yᵀHy > sᵀy/μ₁ are left out (Alg. 5, line 17).
        double_gradient: false; whether the gradient of the second sample joins the next step's (ren 2.8.3); it needs
            interval = 1.
        groups: parameter groups with lr, damping, momentum or weight_decay of their own; None.
    """

    momentum: float
    weight_decay: float
    decay: float
    mu: float
    interval: int
    skip: bool
    double_gradient: bool
    groups: Iterable[Mapping[str, Any]] | None


DEFAULTS: dict[str, Any] = {
    "momentum": 0.9,
    "weight_decay": 0.0,
    "decay": 0.9,
    "mu": 0.2,
    "interval": 1,
    "skip": False,
    "double_gradient": False,
}
_SWITCH = Bound(choices=(True, False))
BOUNDS: dict[str, Bound] = {
    "lr": RATE,
    "damping": POSITIVE,
    "momentum": DECAY,
    "weight_decay": RATE,
    "decay": DECAY,
    "mu": Bound(high=0.999999, above=True),
    "interval": INTERVAL,
    "skip": _SWITCH,
    "double_gradient": _SWITCH,
    "exact": _SWITCH,
    "pairs": INTERVAL,
    "pair_damping": Bound(choices=("double", "powell-lm", "powell-identity-lm")),
    "moment": Bound(choices=("averaged", "minibatch")),
}


def completed(optimizer: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with defaults for those that were not given.

    Raises:
        CurvlabError: there is no such setting, or double_gradient has no second sample to every step.
    """
    unknown = sorted(set(given) - {*QuasiNewtonSettings.__annotations__})
    if unknown:
        known = ", ".join(QuasiNewtonSettings.__annotations__)
        raise CurvlabError(f"{optimizer} has no setting {unknown[0]!r}", "", f"there are {known}")
    settings = {**DEFAULTS, **given}
    if settings["double_gradient"] and settings["interval"] != 1:
        raise CurvlabError(
            f"{optimizer}: double_gradient with interval {settings['interval']!r}",
            "every step needs the second sample of the step before",
            "use one of them",
        )
    return settings
