"""The loop of every optimizer: closure → gradients and statistics → averages → direction p → W ← W − α(p + γW)."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from curvlab.capture.batch_record import BatchRecord
from curvlab.capture.closures import Closure, checked_loss, closure_of
from curvlab.capture.forward_backward import ForwardBackward
from curvlab.capture.gradients import gradients_of, strided
from curvlab.capture.preserve import preserve
from curvlab.errors import CurvlabError
from curvlab.optim.declared import Params
from curvlab.optim.grouped_parameters import Named
from curvlab.optim.joint_gradient import JointGradient
from curvlab.optim.model_calls import CountedExamples, at_calls
from curvlab.optim.stateful import Stateful
from curvlab.optim.usable_model import refuse_changed, type_and_device

__all__ = ["Named", "Optimizer", "finite"]


class Optimizer(Stateful):
    """W ← W − α(p + γW) with a direction p per parameter (decoupled decay: Ren 2022, sections 3.7.2, 4.7.2).

    `step(closure)`: the closure runs the model and returns the mean loss, and calls no backward. `accumulate(closure)`
    adds a batch to the next step, which then is the step on the joint batch. Optimizers that need gradients alone also
    take `loss.backward(); step()`. A step whose gradient is not finite changes nothing and is counted in `skipped`.
    That is the one answer a step waits for from the device.

    A step calls these methods in this order. A method writes `update` and `direction`, and whatever else it does
    otherwise:

    | method | computes | by default |
    |---|---|---|
    | `measure(closure, first)` | loss and gradients of a batch, and what the method keeps of it | no statistics |
    | `average(gradients, examples)` | statistics → averages → operators | nothing |
    | `update(gradients)` | momentum, and the directions p | |
    | `move(directions)` | W ← (1 − αγ)W − αp | |
    | `learn()` | what follows from the weights that have moved | nothing |

    Outside of steps: `direction(gradients)`, P g with averages and weights as they are; `settle()` at the end of a warm
    start, whose batches go through `measure` and `average` while `warming` is true; `damped(value)`, directions with
    another damping; `saved_state` and `restore_state`; `coverage`, `counters`, `failures` and `current_damping`, which
    only report.

    Arguments are those of `GroupedParameters`, further attributes those of `Stateful`.

    Attributes:
        recorder: records the closure's batches, where a method takes statistics; a comparison replaces it by one that
            shows all optimizers the same record.
        warming: whether a batch of a warm start is measured: averages are plain means then.
    """

    recorder: ForwardBackward | None = None

    def __init__(
        self, model: nn.Module | Params, defaults: dict[str, Any], groups: Iterable[Mapping[str, Any]] | None = None
    ) -> None:
        super().__init__(model, defaults, groups)
        self.warming = False
        self._as = type_and_device(self)
        self._batches = JointGradient()

    # A step.

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Tensor | None:  # type: ignore[override]
        """One update; returns the closure's loss.

        Raises:
            CurvlabError: the optimizer needs a closure and got none, or the closure did not run the model once.
        """
        loss = None if closure is None else self.accumulate(closure)
        if loss is None and self.needs_closure and not self.gathered:
            raise CurvlabError(
                f"{self.name} needs a closure", "it looks at the model while it runs", "call step(closure)"
            )
        if directions := self.propose():
            with self.full_precision():
                self.move(directions)
        torch.clear_autocast_cache()  # inside an autocast region the next forward would see copies of the old weights
        self.learn()
        self.steps += 1
        return loss

    def accumulate(self, closure: Closure) -> Tensor:
        """Run a batch and add it to the next step: losses are means, so that batches count by their number of
        examples."""
        refuse_changed(self, self._as)
        try:
            with torch.enable_grad():
                record = self.measure(closure, first=not self.gathered)
        except BaseException:
            self._batches = JointGradient()
            raise
        self._batches.add(record.gradients, record.examples)
        assert record.loss is not None
        return record.loss

    @torch.no_grad()
    def propose(self) -> Named:
        """The directions of the next `step`, from the batches that `accumulate` gathered, or else from the parameters'
        `grad`.

        Averages, operators and momentum are updated, weights are not. Empty where the gradient was not finite.
        """
        refuse_changed(self, self._as)
        gradients, examples = self._batches.take()
        if not gradients:
            gradients = {self.names[id(p)]: p.grad for p in self.parameters() if p.grad is not None}
            strided(self.name, gradients)
        with self.full_precision():
            if not self._finite(gradients):
                return {}
            self.average(gradients, examples)
            return self.update(gradients)

    @property
    def gathered(self) -> bool:
        """Whether batches wait for the next step."""
        return bool(self._batches.gradients)

    def _finite(self, gradients: Named) -> bool:
        if finite(gradients):
            return True
        self.skipped += 1
        return False

    # What a step is made of.

    def measure(self, closure: Closure, first: bool) -> BatchRecord:
        """Loss and gradients of a batch; a closure that never runs the model has one example.

        Args:
            closure: of the batch; gradients are enabled.
            first: whether the batch is a step's first: statistics of batches before it are not to be used any more.
        """
        counted = CountedExamples()
        with at_calls(self.model, counted):
            loss = checked_loss(self.name, closure())
        gradients, _ = gradients_of(self.name, loss, self.trainable())
        return BatchRecord(max(1, counted.examples), loss.detach(), gradients)

    def average(self, gradients: Named, examples: int) -> None:
        """The statistics of a step's batches, or of its mean gradient, join the averages; operators are made of them
        where they are due.

        Args:
            gradients: of the joint batch; finite.
            examples: N of it; 0 where gradients came by `backward`.
        """

    @abstractmethod
    def update(self, gradients: Named) -> Named:
        """Directions p from gradients, with momentum updated."""

    @abstractmethod
    def direction(self, gradients: Named) -> Named:
        """The preconditioned direction for given gradients; neither weights nor state change."""

    def move(self, directions: Named) -> None:
        """W ← (1 − αγ)W − αp; parameters without a direction stay."""
        for group, names, parameters in self.by_group(directions):
            if group["weight_decay"]:
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(parameters, [directions[name] for name in names], alpha=-group["lr"])

    def learn(self) -> None:
        """What a method learns of the step it has taken.

        `step` calls it. After `propose`, the caller that moves the weights calls it.
        """

    # Beside the steps.

    def warm_start(self, batches: Iterable[Any], loss: Callable[..., Tensor] | None = None) -> float:
        """One pass that measures what the method averages; weights, buffers and random state stay as they were.

        Args:
            batches: closures as for `step`; or with `loss`, a loader.
            loss: the mean loss of an item of the loader, called with its parts: `lambda x, y: criterion(model(x), y)`.

        Returns:
            Seconds it took; 0 where there is nothing to measure (`warms` is false).
        """
        if not self.warms:
            return 0.0
        start = time.perf_counter()
        with preserve(self.model):
            for batch in batches:
                self.warm(closure_of(self.name, batch, loss))
        self.settle()
        return time.perf_counter() - start

    def warm(self, closure: Closure) -> None:
        """One batch of a warm start."""
        self.warming = True
        try:
            with torch.enable_grad():
                record = self.measure(closure, first=True)
            with torch.no_grad(), self.full_precision():
                if self._finite(record.gradients):
                    self.average(record.gradients, record.examples)
        finally:
            self.warming = False

    def settle(self) -> None:
        """What a method makes of its averages at the end of a warm start."""

    @contextmanager
    def damped(self, value: float) -> Iterator[None]:
        """Inside, `direction` is that of another value of the setting `swept`, from the same averages; all is as
        before afterwards."""
        assert self.swept is not None
        before = [group[self.swept] for group in self.param_groups]
        try:
            for group in self.param_groups:
                group[self.swept] = value
            yield
        finally:
            for group, old in zip(self.param_groups, before, strict=True):
                group[self.swept] = old

    def restore_state(self, state_dict: Mapping[str, Any]) -> None:
        """The inverse of `saved_state`; batches that wait for a step are dropped."""
        super().restore_state(state_dict)
        self._batches = JointGradient()


def finite(tensors: Mapping[str, Tensor]) -> bool:
    """Whether no tensor holds a NaN or an infinity, or numbers whose sum is one; reads the device once."""
    # A sum reads each number once and writes nothing; isfinite().all() costs four times as much.
    return not tensors or bool(torch.stack([t.sum() for t in tensors.values()]).isfinite().all())
