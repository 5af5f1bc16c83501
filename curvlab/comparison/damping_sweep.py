"""How the cosine with the baseline depends on the damping: operators made anew from the same averages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from curvlab.comparison.agreement import Number
from curvlab.comparison.direction_study import DirectionStudy
from curvlab.comparison.reference import OptimizerReference
from curvlab.comparison.results import mean
from curvlab.errors import NumericalError
from curvlab.optim.core import Named


@dataclass(frozen=True)
class Point:
    """One optimizer at one damping: the cosine of its direction with the baseline's, whose damping stays.

    Attributes:
        value: λ or ε, or LNB's ridge.
        cosine: layer -> cosine, None where the operators could not be made.
    """

    value: float
    cosine: Mapping[str, Number]

    @property
    def mean(self) -> Number:
        """Over the layers."""
        return mean(list(self.cosine.values()))

    @staticmethod
    def mean_of(points: Sequence[Point]) -> Point:
        """The mean over several steps."""
        layers = points[0].cosine
        return Point(points[0].value, {layer: mean([one.cosine[layer] for one in points]) for layer in layers})


def sweep(study: DirectionStudy, gradient: Named, dampings: Sequence[float]) -> dict[str, list[Point]]:
    """Label -> a point per damping, for every optimizer that has one; "" is the baseline's own at other dampings.

    All directions are of the same gradient, so that only the preconditioner differs.
    """
    baseline = study.reference.direction(gradient)
    everyone = dict(study.shadows)
    if isinstance(study.reference, OptimizerReference):
        everyone = {"": study.reference.shadow, **everyone}
    found: dict[str, list[Point]] = {}
    for label, shadow in everyone.items():
        optimizer = shadow.optimizer
        if optimizer.swept is None:  # there is no damping, or it does not tell what the direction is
            continue
        for value in dampings:
            direction: Named = {}
            try:
                with torch.no_grad(), optimizer.damped(value):
                    if not optimizer.failures:
                        direction = optimizer.direction(gradient)
            except NumericalError:
                direction = {}
            found.setdefault(label, []).append(Point(value, _cosines(study, direction, baseline, gradient)))
    return found


def _cosines(study: DirectionStudy, direction: Named, baseline: Named, gradient: Named) -> Mapping[str, Number]:
    return study.measure({"swept": direction}, baseline, gradient)["swept"].cosine
