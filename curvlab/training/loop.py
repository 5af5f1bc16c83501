"""The loop: steps, an evaluation and a saved state after each epoch, and the reasons to end early."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from curvlab.errors import NumericalError
from curvlab.training.interruption import Interruption
from curvlab.training.result import Status
from curvlab.training.run import PATIENCE, Run
from curvlab.training.target import Target

Report = Callable[[str, int, int | None], None]
"""report(stage, done, total)."""


@dataclass(frozen=True)
class Watch:
    """What can end a run before its budget: a target, a time on `time.monotonic`, the user; and who is told of it."""

    target: Target | None
    deadline: float | None
    interruption: Interruption
    report: Report


@dataclass(frozen=True)
class Outcome:
    """How the loop ended, and for a run that diverged in which way."""

    status: Status
    reason: str | None = None


class _Stopped(Exception):  # noqa: N818 - no failure: it carries an outcome out of the optimizer's warm start
    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self.outcome = outcome


def train_loop(run: Run, watch: Watch) -> Outcome:
    """Train until the budget or something in `watch` ends it; what is on disk afterwards can be continued."""
    with run.clocks.measure("train"):
        outcome = _trained(run, watch)
        if outcome.status != "interrupted" and (run.entry is None or run.entry["step"] != run.step):
            # After the state was saved: a run that goes on forgets this line, as one never stopped has none here.
            run.folder.log(run.evaluated())
            if outcome.status != "diverged":
                outcome = _judged(run) or (Outcome("target-met") if _met(run, watch) else outcome)
    return outcome


def _trained(run: Run, watch: Watch) -> Outcome:
    try:
        if run.saved < 0:
            run.save()
        if not run.warm:
            _warm_start(run, watch)
            run.warm = True
            run.save()
        outcome = _stepped(run, watch)
    except _Stopped as stopped:
        return stopped.outcome
    except NumericalError as error:
        return Outcome("diverged", str(error))
    if outcome.status != "diverged" and run.saved != run.step:
        run.save()
    return outcome


def _stepped(run: Run, watch: Watch) -> Outcome:
    if _met(run, watch):
        return Outcome("target-met")
    every = run.settings
    while run.step < run.total:
        for x, y in run.batches():
            run.take_step(x, y)
            watch.report("training steps", run.step, run.total)
            complete = run.step % run.per_epoch == 0
            saving = complete or bool(every.save_every and run.step % every.save_every == 0)
            if saving or run.step % PATIENCE == 0 or run.step == run.total:
                reason = run.divergence()
                if reason:
                    return Outcome("diverged", reason)
            if complete:
                run.folder.log(run.evaluated())
                if diverged := _judged(run):
                    return diverged
                if every.snapshots and run.epoch % every.snapshots == 0:
                    run.snapshot()
            elif every.log_every and run.step % every.log_every == 0:
                run.folder.log(run.line())
            if saving:
                run.save()
            if complete and _met(run, watch):
                return Outcome("target-met")
            if run.step >= run.total:
                break
            if early := _early(watch):
                return early
    return Outcome("finished")


def _warm_start(run: Run, watch: Watch) -> None:
    begin = getattr(run.optimizer, "warm_start", None)
    if begin is None or not run.settings.warm_start:
        return

    watch.report("warm start", 0, run.per_epoch)

    def closures() -> Iterator[Callable[[], Tensor]]:
        for done, closure in enumerate(run.closures()):
            if early := _early(watch):
                raise _Stopped(early)
            yield closure
            watch.report("warm start", done + 1, run.per_epoch)

    with run.clocks.measure("warm_start"):
        begin(closures())


def _early(watch: Watch) -> Outcome | None:
    if watch.interruption.requested:
        return Outcome("interrupted")
    if watch.deadline is not None and time.monotonic() >= watch.deadline:
        return Outcome("out-of-time")
    return None


def _met(run: Run, watch: Watch) -> bool:
    """Whether an evaluation of the weights as they are meets the target."""
    if watch.target is None or run.entry is None or run.entry["step"] != run.step:
        return False
    return watch.target.met(run.entry)


def _judged(run: Run) -> Outcome | None:
    """Divergence that only an evaluation shows."""
    assert run.entry is not None
    for part in ("train", "test"):
        loss = run.entry[part]["loss"]
        if not math.isfinite(loss):
            return Outcome("diverged", f"the {part} loss was not finite after step {run.step}")
    return None
