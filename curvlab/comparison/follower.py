"""Follower: an optimizer that is shown every batch and says where it would go, while another moves the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from curvlab.comparison.sight import Sight
from curvlab.optim.closures import Closure
from curvlab.optim.core import Named, Optimizer
from curvlab.optim.preconditioned import Preconditioned
from curvlab.optim.watch import Watch
from curvlab.solvers.last_good import LastGood


class Follower:
    """An optimizer in a comparison.

    Args:
        optimizer: of the one model that all have.
        sight: what shows it the batches.
    """

    def __init__(self, optimizer: Optimizer, sight: Sight) -> None:
        self.optimizer, self.sight = optimizer, sight
        self._kept: list[Closure] = []
        """Batches for a warm start that only the optimizer itself can make."""
        own: Watch | None = getattr(optimizer, "watch", None)
        if own is not None:
            optimizer.watch = sight.watch_of(optimizer, own.signals)  # type: ignore[attr-defined]

    def take(self, closure: Closure) -> None:
        """Look at the batch; what needs gradients alone finds them in the parameters' `grad`."""
        if self.optimizer.needs_closure:
            # Where statistics are not due, or are of its own making, the optimizer runs the batch itself.
            with self.sight.again():
                self.optimizer.accumulate(closure)

    def propose(self) -> Named:
        """Where it would go, averages and momentum advanced; empty where the batch's gradient was not finite."""
        directions = self.optimizer.propose()
        self.optimizer.steps += 1
        return {name: direction.clone() for name, direction in directions.items()}

    def follow(self) -> None:
        """What it does once the weights have moved: K-BFGS looks at the batch a second time."""
        learn: Callable[[], None] | None = getattr(self.optimizer, "learn", None)
        if learn is not None:
            with self.sight.again():
                learn()

    def learn(self, closure: Closure) -> None:
        """A batch at weights that stay: part of a warm start, or for what has none a step that leads nowhere."""
        if not self.optimizer.warms:
            self.take(closure)
            self.propose()
        elif isinstance(self.optimizer, Preconditioned) or not self.optimizer.needs_closure:
            self.optimizer.warm(closure if self.optimizer.needs_closure else self.sight.linear)
        else:
            self._kept.append(closure)

    def settle(self) -> None:
        """Operators of the averages after the last `learn`."""
        if self._kept:
            self.optimizer.warm_start(self._kept)
            self._kept = []
        if isinstance(self.optimizer, Preconditioned) and self.optimizer.averages:
            self.optimizer.refresh()

    @property
    def damping_name(self) -> str | None:
        """The setting that damps it: "damping", LNB's "ridge"; None where there is none."""
        return next((name for name in ("damping", "ridge") if name in self.optimizer.defaults), None)

    @contextmanager
    def damped(self, value: float) -> Iterator[None]:
        """With another damping and operators made with it from the same averages; all as before afterwards."""
        name, optimizer = self.damping_name, self.optimizer
        assert name is not None
        before = [group[name] for group in optimizer.param_groups]
        kept: tuple[Any, ...] | None = None
        for group in optimizer.param_groups:
            group[name] = value
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
