"""Directions along the baseline's trajectory (Ren 2022, section 4.3.4): it moves the weights, all others give their
directions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from curvlab.capture.preserve import preserve
from curvlab.comparison.agreement import Agreement
from curvlab.comparison.damping_sweep import Point, sweep
from curvlab.comparison.direction_study import DirectionStudy, finite
from curvlab.comparison.reference import AveragedGradient
from curvlab.errors import NumericalError

Report = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class Measured:
    """What was found.

    Attributes:
        steps: batches shown.
        swept: steps that `points` are a mean over.
        at: steps, from 1, that `agreements` are of.
        agreements: label -> one per step; "" is the baseline beside itself.
        points: label -> one per damping.
    """

    steps: int
    at: tuple[int, ...]
    agreements: dict[str, tuple[Agreement, ...]]
    points: dict[str, tuple[Point, ...]]
    swept: tuple[int, ...] = ()


def along_trajectory(
    study: DirectionStudy, steps: int, dampings: Sequence[float], report: Report, warm: bool
) -> Measured:
    """Every step: one batch for all, every direction with averages taken along the way, then the baseline moves.

    With `warm`, one pass over the training set comes before: those with a warm start average over it (Ren 2022, section
    4.7.2).

    Raises:
        NumericalError: the baseline's own direction is not finite.
    """
    if warm:
        _warm_start(study, report)
    gradient, batches = AveragedGradient(), study.workload.closures()
    found: list[dict[str, Agreement]] = []
    swept = set(_evenly(steps)) if dampings else set()
    points: list[dict[str, list[Point]]] = []
    for step in range(1, steps + 1):
        report("directions", step - 1, steps)
        closure = next(batches)
        record = study.run(closure)
        gradient.add(record.gradients, record.examples)
        for shadow in study.everyone():
            if shadow.failed is None:
                shadow.take(closure)
        averaged = gradient.value()
        proposals = {label: shadow.attempt(shadow.propose) for label, shadow in study.shadows.items()}
        baseline = study.reference.propose(averaged)
        study.fisher.add(record, study.shared.found)
        if not finite(baseline):
            raise NumericalError(
                f"the baseline's direction is not finite at step {step}",
                "the trajectory ends there",
                "lower its lr or raise its damping with --set",
            )
        found.append(study.measure(proposals, baseline, averaged))
        if step in swept:
            points.append(sweep(study, averaged, dampings))
        study.reference.move(baseline)
        for shadow in study.everyone():
            shadow.follow()
    report("directions", steps, steps)
    labels = list(found[0])
    merged = {label: _averaged([one[label] for one in points]) for label in points[0]} if points else {}
    return Measured(
        steps,
        tuple(range(1, steps + 1)),
        {label: tuple(one[label] for one in found) for label in labels},
        merged,
        tuple(sorted(swept)),
    )


def _warm_start(study: DirectionStudy, report: Report) -> None:
    """Warm-start all as in training; weights, buffers and random state stay as they were."""
    with preserve(study.model):
        for place, closure in enumerate(study.workload.warm()):
            report("warm start", place, study.workload.passes)
            study.fisher.add(study.run(closure), study.shared.found, mean=True)
            for shadow in study.everyone():
                shadow.warm(closure)
    for shadow in study.everyone():
        shadow.settle()


def _evenly(steps: int) -> list[int]:
    """A third, two thirds, and the end of the way."""
    return sorted({max(1, round(steps * k / 3)) for k in (1, 2, 3)})


def _averaged(points: list[list[Point]]) -> tuple[Point, ...]:
    """The mean over the steps, damping by damping."""
    return tuple(Point.mean_of(list(same)) for same in zip(*points, strict=True))
