"""The curve of an optimizer in a race: at every evaluation the median and range of the loss over its seeds."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from curvlab.comparison.race_results import Entrant
from curvlab.comparison.spread import Spread, spread


@dataclass(frozen=True)
class CurvePoint:
    """After some steps.

    Attributes:
        epoch: passes over the training set.
        seconds: of training until then, the median over seeds.
        loss: over the training set; a run that has ended by then because it diverged counts as infinite.
        test_loss: over the examples held out.
    """

    epoch: float
    seconds: float
    loss: Spread
    test_loss: Spread


def curve(entrant: Entrant) -> tuple[CurvePoint, ...]:
    """The points that all runs which held out have; of a budget of seconds as far as the slowest of them came."""
    sound = [set(run.steps) for run in entrant.runs if not run.lost]
    steps = set.intersection(*sound) if sound else {step for run in entrant.runs for step in run.steps}
    points = []
    for step in sorted(steps):
        there = [(run, run.steps.index(step)) for run in entrant.runs if step in run.steps]
        missing = [None] * (len(entrant.runs) - len(there))
        points.append(
            CurvePoint(
                epoch=next(run.epochs[place] for run, place in there),
                seconds=statistics.median(run.train_seconds[place] for run, place in there),
                loss=spread([*(run.loss[place] for run, place in there), *missing]),
                test_loss=spread([*(run.test_loss[place] for run, place in there), *missing]),
            )
        )
    return tuple(points)
