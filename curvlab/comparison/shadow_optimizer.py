"""ShadowOptimizer: gives its direction for every batch while the baseline moves the weights."""

from __future__ import annotations

from collections.abc import Callable

from curvlab.capture.closures import Closure
from curvlab.comparison.shared_batch import SharedBatch, SharedRecorder
from curvlab.errors import NumericalError
from curvlab.optim.core import Named, Optimizer


class ShadowOptimizer:
    """An optimizer in a comparison: a step of it is `take`, `propose` and, once the baseline has moved, `follow`.

    What it does is what its class says of itself (`curvlab.optim.traits`) and the methods of `Optimizer`.

    Args:
        optimizer: of the one model that all have.
        shared: the batch that all optimizers are shown.
    """

    def __init__(self, optimizer: Optimizer, shared: SharedBatch) -> None:
        self.optimizer, self.shared = optimizer, shared
        if optimizer.recorder is not None:
            optimizer.recorder = SharedRecorder(shared, optimizer.name, optimizer.recorder.wants_gradients)

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
        with self.shared.again():
            self.optimizer.learn()

    def stay(self, closure: Closure) -> None:
        """A batch at weights that stay: part of a warm start, or for what has none a step that leads nowhere."""
        if self.optimizer.warms:
            self.warm(closure)
            return
        self.take(closure)
        if not self.optimizer.batches_joined:
            self.propose()

    def warm(self, closure: Closure) -> None:
        """A batch of a warm start, for those that have one."""
        if self.optimizer.warms:
            with self.shared.again():
                self.optimizer.warm(closure if self.optimizer.needs_closure else self.shared.linear)

    def settle(self) -> Named:
        """What the batches of `stay` or `warm` lead to: the step of those that were joined, or operators."""
        if self.optimizer.gathered:
            self.propose()
        if self.optimizer.warms:
            self.optimizer.settle()
        return {}
