"""Directions at the weights of a saved network: statistics averaged over one pass, and every optimizer's P g for
the mean gradient g."""

from __future__ import annotations

from collections.abc import Sequence

from curvlab.capture.closures import Closure
from curvlab.comparison.damping_sweep import sweep
from curvlab.comparison.direction_study import DirectionStudy, finite
from curvlab.comparison.reference import AveragedGradient
from curvlab.comparison.trajectory import Measured, Report
from curvlab.errors import DataError, MemoryBudgetError, NumericalError


def at_weights(study: DirectionStudy, dampings: Sequence[float], report: Report) -> Measured:
    """One pass over the data, nothing moves; then one direction each.

    Optimizers with a warm start average over the whole pass; the others take the batches in their order, as steps that
    lead nowhere.

    Raises:
        DataError: there was no batch.
        NumericalError: the baseline's direction is not finite.
    """
    gradient = AveragedGradient(decay=None)
    steps = 0
    study.fisher.expect(study.workload.passes)
    for steps, closure in enumerate(study.workload.warm(), start=1):
        report("statistics", steps - 1, study.workload.passes)
        record = study.run(closure)
        gradient.add(record.gradients, record.examples)
        _learn(study, closure)
        study.fisher.add(record, study.shared.found, mean=True)
    if not steps:
        raise DataError("the data holds no batch")
    for shadow in study.everyone():
        shadow.attempt(shadow.settle)
    averaged = gradient.value()
    baseline = study.reference.direction(averaged)
    if not finite(baseline):
        raise NumericalError("the baseline's direction is not finite", "", "raise its damping with --set")
    directions = {
        label: one.attempt(lambda one=one: one.optimizer.direction(averaged))  # type: ignore[misc]
        for label, one in study.shadows.items()
    }
    found = study.measure(directions, baseline, averaged)
    points = sweep(study, averaged, dampings) if dampings else {}
    return Measured(
        steps,
        (steps,),
        {label: (one,) for label, one in found.items()},
        {label: tuple(one) for label, one in points.items()},
    )


def _learn(study: DirectionStudy, closure: Closure) -> None:
    try:
        for shadow in study.everyone():
            shadow.stay(closure)
    except MemoryBudgetError as error:
        # What the error advises is about training.
        raise MemoryBudgetError(error.found, error.why, "use fewer --samples, or --baseline ekfac") from error
