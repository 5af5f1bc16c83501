"""ShadowOptimizer: gives its direction for every batch while the baseline moves the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from curvlab.capture.closures import Closure
from curvlab.capture.forward_backward import ForwardBackward
from curvlab.comparison.shared_batch import SharedBatch, SharedRecorder
from curvlab.errors import NumericalError
from curvlab.optim.core import Named, Optimizer
from curvlab.optim.last_good import LastGood
from curvlab.optim.lnb.lnb import LNB
from curvlab.optim.preconditioned import Preconditioned

CONVERGED = 300
"""CG iterations of LNB in a sweep; far more than its neurons need."""


class ShadowOptimizer:
    """An optimizer in a comparison.

    Args:
        optimizer: of the one model that all have.
        shared: the batch that all optimizers are shown.
    """

    def __init__(self, optimizer: Optimizer, shared: SharedBatch) -> None:
        self.optimizer, self.shared = optimizer, shared
        self._kept: list[Closure] = []
        """Batches for a warm start that only the optimizer itself can make."""
        own: ForwardBackward | None = getattr(optimizer, "recorder", None)
        if own is not None:
            optimizer.recorder = SharedRecorder(shared, optimizer.name, own.wants_gradients)  # type: ignore[attr-defined]

    failed: str | None = None
    """Why it has no directions any more."""

    def attempt(self, work: Callable[[], Named]) -> Named:
        """`work`, unless this optimizer has failed; a numerical failure ends its part only."""
        if self.failed is None:
            try:
                return work()
            except NumericalError as error:
                self.failed = str(error)
        return {}

    def take(self, closure: Closure) -> None:
        """Look at the batch; what needs gradients alone finds them in the parameters' `grad`."""
        if self.optimizer.needs_closure:
            # Where statistics are not due, or are of its own making, the optimizer runs the batch itself.
            with self.shared.again():
                self.optimizer.accumulate(closure)

    def propose(self) -> Named:
        """Where it would go, averages and momentum advanced; empty where the batch's gradient was not finite."""
        directions = self.optimizer.propose()
        self.optimizer.steps += 1
        return {name: direction.clone() for name, direction in directions.items()}

    def follow(self) -> None:
        """Act once the weights have moved: K-BFGS runs the batch a second time."""
        learn: Callable[[], None] | None = getattr(self.optimizer, "learn", None)
        if learn is not None:
            with self.shared.again():
                learn()

    def learn(self, closure: Closure) -> None:
        """A batch at weights that stay: part of a warm start, or for what has none a step that leads nowhere."""
        if self.optimizer.warms:
            self.warm(closure)
            return
        self.take(closure)
        if not isinstance(self.optimizer, LNB):  # whose batches are those of one step: its metric is of all of them
            self.propose()

    def warm(self, closure: Closure) -> None:
        """A batch of a warm start, for those that have one."""
        if not self.optimizer.warms:
            return
        if isinstance(self.optimizer, Preconditioned) or not self.optimizer.needs_closure:
            self.optimizer.warm(closure if self.optimizer.needs_closure else self.shared.linear)
        else:
            self._kept.append(closure)

    def settle(self) -> Named:
        """Operators of the averages after the last `learn`."""
        if isinstance(self.optimizer, LNB) and self.optimizer.gathered:
            self.propose()
        if self._kept:
            self.optimizer.warm_start(self._kept)
            self._kept = []
        if isinstance(self.optimizer, Preconditioned) and self.optimizer.averages:
            self.optimizer.refresh()
        return {}

    @property
    def damping_name(self) -> str | None:
        """The setting that damps its directions: "damping", LNB's "ridge".

        None where there is none, or where it does not tell what the direction is: that of K-BFGS is in the inverses it
        has learned, that of FOP belongs to a base optimizer.
        """
        return self.optimizer.swept

    @contextmanager
    def damped(self, value: float) -> Iterator[None]:
        """With another damping and operators made with it from the same averages; all as before afterwards."""
        name, optimizer = self.damping_name, self.optimizer
        assert name is not None
        before = [group[name] for group in optimizer.param_groups]
        kept: tuple[Any, ...] | None = None
        for group in optimizer.param_groups:
            group[name] = value
        solved = _unsolved(optimizer) if isinstance(optimizer, LNB) else {}
        try:
            if isinstance(optimizer, Preconditioned) and optimizer.averages:
                kept = optimizer.operators, optimizer.refreshed, optimizer.averages
                # Recipes may keep notes in the averages (EKFAC its basis): these are copies.
                optimizer.operators, optimizer.averages = LastGood(), deepcopy(optimizer.averages)
                optimizer.refresh()
            yield
        finally:
            for group, old in zip(optimizer.param_groups, before, strict=True):
                group[name] = old
            if kept is not None and isinstance(optimizer, Preconditioned):
                optimizer.operators, optimizer.refreshed, optimizer.averages = kept
            if isinstance(optimizer, LNB):
                optimizer.schedule["iterations"] = solved.pop("iterations")
                for p, solution in solved.items():
                    optimizer.state[p]["solution"] = solution


def _unsolved(optimizer: LNB) -> dict[Any, Any]:
    """Take away where its CG would start, which is another damping's solution, and let it run until it converges."""
    taken: dict[Any, Any] = {p: state.pop("solution") for p, state in optimizer.state.items() if "solution" in state}
    taken["iterations"], optimizer.schedule["iterations"] = optimizer.schedule["iterations"], CONVERGED
    return taken
