"""The loop: steps, an evaluation and a saved state after each epoch, and the reasons to end early."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from curvlab.errors import NumericalError
from curvlab.training.entry import Entry
from curvlab.training.interruption import Interruption
from curvlab.training.result import Status
from curvlab.training.run import PATIENCE, Run
from curvlab.training.target import Target

Report = Callable[[str, int, int | None], None]
"""report(stage, done, total)."""


@dataclass(frozen=True)
class Supervision:
    """What can end a run before its budget, who is told of it, and what is done to be able to go on.

    Attributes:
        target: what an evaluation may meet.
        deadline: a time on `time.monotonic`.
        interruption: by the user.
        report: told how far it is.
        training_seconds: what the clock of training may show, warm start included; looked at before each step, for
            which a GPU is waited for.
        save: what writes the state; a race has no use for it.
    """

    target: Target | None
    deadline: float | None
    interruption: Interruption
    report: Report
    training_seconds: float | None = None
    save: Callable[[Run], None] = Run.save


@dataclass(frozen=True)
class Outcome:
    """How the loop ended, and for a run that diverged in which way."""

    status: Status
    reason: str | None = None


class _Stopped(Exception):  # noqa: N818 - no failure: it carries an outcome out of the optimizer's warm start
    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self.outcome = outcome


def train_loop(run: Run, supervision: Supervision) -> Outcome:
    """Train until the budget or something in `supervision` ends it; what is on disk afterwards can be continued."""
    with run.clocks.measure("train"):
        outcome, last = _trained(run, supervision), None
        if outcome.status != "interrupted" and (run.entry is None or run.entry["step"] != run.step):
            last = run.evaluation()
            if outcome.status != "diverged":
                outcome = _judged(run, last) or outcome
        if outcome.status != "diverged" and run.saved != run.step:
            supervision.save(run)
        if last is not None:
            # After the state was saved: a run that goes on forgets this line, as one never stopped has none here.
            run.remember(last)
            if outcome.status != "diverged" and _met(run, supervision):
                outcome = Outcome("target-met")
    return outcome


def _trained(run: Run, supervision: Supervision) -> Outcome:
    try:
        if run.saved < 0:
            supervision.save(run)
        if not run.warm:
            _warm_start(run, supervision)
            run.warm = True
            supervision.save(run)
        return _stepped(run, supervision)
    except _Stopped as stopped:
        return stopped.outcome
    except NumericalError as error:
        return Outcome("diverged", str(error))


def _stepped(run: Run, supervision: Supervision) -> Outcome:
    if _met(run, supervision):
        return Outcome("target-met")
    every = run.settings
    while run.step < run.total:
        for x, y in run.batches():
            run.take_step(x, y)
            supervision.report("training steps", run.step, run.total)
            complete = run.step % run.per_epoch == 0
            saving = complete or bool(every.save_every and run.step % every.save_every == 0)
            if saving or run.step % PATIENCE == 0 or run.step == run.total:
                reason = run.divergence()
                if reason:
                    return Outcome("diverged", reason)
            if complete:
                run.remember(entry := run.evaluation())
                if diverged := _judged(run, entry):
                    return diverged
                if every.snapshots and run.epoch % every.snapshots == 0:
                    run.snapshot()
            elif every.log_every and run.step % every.log_every == 0:
                run.log(run.line())
            if saving:
                supervision.save(run)
            if complete and _met(run, supervision):
                return Outcome("target-met")
            if run.step >= run.total:
                break
            if early := _early(run, supervision):
                return early
    return Outcome("finished")


def _warm_start(run: Run, supervision: Supervision) -> None:
    if not run.optimizer.warms or not run.settings.warm_start:
        return
    supervision.report("warm start", 0, run.per_epoch)

    def closures() -> Iterator[Callable[[], Tensor]]:
        for done, closure in enumerate(run.closures()):
            if early := _early(run, supervision):
                raise _Stopped(early)
            yield closure
            supervision.report("warm start", done + 1, run.per_epoch)

    with run.clocks.measure("warm_start"):
        run.optimizer.warm_start(closures())


def _early(run: Run, supervision: Supervision) -> Outcome | None:
    if supervision.interruption.requested:
        return Outcome("interrupted")
    if supervision.deadline is not None and time.monotonic() >= supervision.deadline:
        return Outcome("out-of-time")
    limit = supervision.training_seconds
    if limit is not None and run.clocks.seconds()["train"] >= limit:
        return Outcome("out-of-time")
    return None


def _met(run: Run, supervision: Supervision) -> bool:
    """Whether an evaluation of the weights as they are meets the target."""
    if supervision.target is None or run.entry is None or run.entry["step"] != run.step:
        return False
    return supervision.target.met(run.entry)


def _judged(run: Run, entry: Entry) -> Outcome | None:
    reason = run.judged(entry)
    return None if reason is None else Outcome("diverged", reason)
