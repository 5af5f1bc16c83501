"""The core loop: gradient of a closure, a direction, and W ← W − α(p + γW); state by parameter name, failures guarded.

`step(closure)`: the closure runs the model and returns the mean loss, and calls no backward. `accumulate(closure)`
adds a batch to the next step, which then is the step on the joint batch. Optimizers that need gradients alone also
take `loss.backward(); step()`.
"""

from __future__ import annotations

import contextlib
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from curvlab.capture.closures import Closure, checked_loss, closure_of
from curvlab.capture.gradients import gradients_of, strided
from curvlab.capture.model_inputs import batch_size
from curvlab.capture.preserve import preserve
from curvlab.curvatures.blocks import PreconditionerBlock
from curvlab.errors import CurvlabError
from curvlab.optim.declared import Params, check_call, check_group
from curvlab.optim.joint_gradient import joint_gradient
from curvlab.optim.loose_parameters import gathered
from curvlab.optim.parameter_groups import parameter_groups
from curvlab.optim.saved_state import check_state, hooked_state, load_hooked_state, rebuilt, restore, saved
from curvlab.optim.traits import Traits
from curvlab.optim.usable_model import refuse_changed, refuse_unusable, type_and_device

Named = dict[str, Tensor]
"""Tensors by parameter name."""


class Optimizer(Traits, torch.optim.Optimizer):
    """W ← W − α(p + γW) with a direction p per parameter (decoupled decay: Ren 2022, sections 3.7.2, 4.7.2).

    A step whose gradient is not finite changes nothing and is counted in `skipped`. That is the one answer a step
    waits for from the device.

    Args:
        model: the network; frozen parameters are left alone. Parameters without one where `takes_parameters`.
        defaults: hyper-parameters of every group that does not set them.
        groups: parameter groups as `{"params": [names or parameters], "lr": ...}`; the rest of the parameters form
            one more. None: one group of all parameters.

    Attributes:
        steps: number of calls of `step`.
        skipped: number of batches that moved nothing because their gradient was not finite, those of a warm start
            included.
        averages: statistics by block, where a method has them.
    """

    averages: dict[str, dict[str, Tensor]]
    _given: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Judges what the constructor is given by what it declares; a pickled optimizer is made of it again."""
        if args or kwargs:
            check_call(cls, args, kwargs)
        made = super().__new__(cls)
        made._given = args, kwargs
        return made

    def __init__(
        self, model: nn.Module | Params, defaults: dict[str, Any], groups: Iterable[Mapping[str, Any]] | None = None
    ) -> None:
        self.model, groups = gathered(self.name, model, groups)
        model = self.model
        self.names = {id(p): name for name, p in model.named_parameters()}
        super().__init__(parameter_groups(model, groups), defaults)
        for group in self.param_groups:
            check_group(type(self), group)
        refuse_unusable(self)
        self.steps = self.skipped = 0
        self.averages = {}
        self._as = type_and_device(self)
        self._batch = 0
        self._gathered: Named = {}
        self._examples = 0

    @property
    def failures(self) -> dict[str, int]:
        """Block name -> how often in a row its newest inverse failed; blocks without a failure are left out."""
        return {}

    def counters(self) -> dict[str, Any]:
        """Further numbers for a log, by name. Reading them may wait for the device."""
        return {}

    def current_damping(self) -> float | None:
        """λ or ε of the first group, as it is now; None for a method without. For a log: it may wait for the device."""
        damping: float | None = self.param_groups[0].get("damping")
        return damping

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group as in torch; a group may set this optimizer's own hyper-parameters.

        Raises:
            CurvlabError: another setting, a value out of bounds, or a parameter that is not the model's.
        """
        parameters = param_group["params"]
        if any(id(p) not in self.names for p in ([parameters] if isinstance(parameters, Tensor) else parameters)):
            raise CurvlabError(f"{self.name}: a parameter group holds a tensor that is no parameter of the model")
        unknown = sorted(set(param_group) - {*self.defaults, "params"})
        if unknown and not hasattr(self, "steps"):  # later, schedulers keep notes of their own in groups
            raise CurvlabError(
                f"{self.name}: a parameter group sets {unknown[0]!r}", "", f"it can set {', '.join(self.defaults)}"
            )
        check_group(type(self), param_group)
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Tensor | None:  # type: ignore[override]
        """One update; returns the closure's loss.

        Raises:
            CurvlabError: the optimizer needs a closure and got none, or the closure did not run the model once.
        """
        loss = None if closure is None else self.accumulate(closure)
        if loss is None and self.needs_closure and not self._gathered:
            raise CurvlabError(
                f"{self.name} needs a closure", "it looks at the model while it runs", "call step(closure)"
            )
        if directions := self.propose():
            with self.full_precision():
                self.move(directions)
        torch.clear_autocast_cache()  # inside an autocast region the next forward would see copies of the old weights
        self.steps += 1
        return loss

    @torch.no_grad()
    def propose(self) -> Named:
        """The directions of the next `step`, from the batches that `accumulate` gathered, or else from the parameters'
        `grad`.

        Averages, operators and momentum are updated, weights are not. Empty where the gradient was not finite.
        """
        refuse_changed(self, self._as)
        gradients, examples = self._gathered, self._examples
        self._gathered, self._examples = {}, 0
        if not gradients:
            gradients = {self.names[id(p)]: p.grad for p in self.parameters() if p.grad is not None}
            strided(self.name, gradients)
        with self.full_precision():
            if finite(gradients):
                self.prepare(gradients, examples)
                return self.update(gradients)
            self.forget()
            self.skipped += 1
            return {}

    @property
    def gathered(self) -> bool:
        """Whether batches wait for the next step."""
        return bool(self._gathered)

    def accumulate(self, closure: Closure) -> Tensor:
        """Add a batch to the next step: losses are means, so that batches count by their number of examples."""
        refuse_changed(self, self._as)
        try:
            loss, examples, fresh = self.examine(closure)
        except BaseException:
            self._gathered, self._examples = {}, 0
            self.forget()
            raise
        self._examples += examples
        share = examples / self._examples
        self._gathered = fresh if share == 1 else joint_gradient(self._gathered, fresh, share)
        return loss

    def examine(self, closure: Closure) -> tuple[Tensor, int, Named]:
        """`evaluate` with gradients on, and the model's calls counted."""
        self._batch = 0
        handle = self.model.register_forward_pre_hook(lambda _, *call: self.noted(*call), with_kwargs=True)
        try:
            with torch.enable_grad():
                return self.evaluate(closure)
        finally:
            handle.remove()

    def evaluate(self, closure: Closure) -> tuple[Tensor, int, Named]:
        """Loss, number of examples (1 if the closure never runs the model) and gradients of the loss."""
        loss = checked_loss(self.name, closure())
        return loss.detach(), max(1, self._batch), gradients_of(self.name, loss, self.trainable())[0]

    def trainable(self) -> Named:
        """The parameters that are not frozen, by name."""
        return {self.names[id(p)]: p for p in self.parameters() if p.requires_grad}

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
        return time.perf_counter() - start

    def warm(self, closure: Closure) -> None:
        """One batch of a warm start."""
        _, examples, gradients = self.examine(closure)
        with torch.no_grad(), self.full_precision():
            if finite(gradients):
                self.absorb(gradients, examples)
            else:
                self.forget()
                self.skipped += 1

    def absorb(self, gradients: Named, examples: int) -> None:
        """Hook of `warm`: what one batch shows joins the averages."""

    def prepare(self, gradients: Named, examples: int) -> None:
        """Hook before `update`: statistics and operators of a step on so many examples."""

    def forget(self) -> None:
        """Hook in place of `prepare` and `update` where the gradient was not finite: drop what the batch showed."""

    @abstractmethod
    def update(self, gradients: Named) -> Named:
        """Directions p from gradients, updating the state."""

    @abstractmethod
    def direction(self, gradients: Named) -> Named:
        """The preconditioned direction for given gradients; neither weights nor state change."""

    def move(self, directions: Named) -> None:
        """W ← (1 − αγ)W − αp; parameters without a direction stay."""
        for group, names, parameters in self.by_group(directions):
            if group["weight_decay"]:
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(parameters, [directions[name] for name in names], alpha=-group["lr"])

    def heavy_ball(self, gradients: Named) -> Named:
        """m ← μm + g for every parameter with a gradient; returns m (the buffers themselves)."""
        moved: Named = {}
        for group, names, parameters in self.by_group(gradients):
            states = [self.state[p] for p in parameters]
            for p, state in zip(parameters, states, strict=True):
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(p)
            buffers = [state["momentum"] for state in states]
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, [gradients[name] for name in names])
            moved.update(zip(names, buffers, strict=True))
        return moved

    def by_group(self, tensors: Mapping[str, Tensor]) -> Iterator[tuple[dict[str, Any], list[str], list[Tensor]]]:
        """(group, names, parameters) of every group that has trainable parameters among the names of `tensors`."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.requires_grad and self.names[id(p)] in tensors]
            if parameters:
                yield group, [self.names[id(p)] for p in parameters], parameters

    def parameters(self) -> list[Tensor]:
        """All parameters of all groups."""
        return [p for group in self.param_groups for p in group["params"]]

    def coverage(self) -> dict[str, str]:
        """Parameter name -> how it is treated."""
        return {self.names[id(p)]: self.name for p in self.parameters()}

    def full_precision(self) -> contextlib.AbstractContextManager[Any]:
        """Whatever autocast the forward runs under, statistics and directions keep the parameters' own type."""
        return torch.autocast(self.parameters()[0].device.type, enabled=False)

    def noted(self, args: Any, kwargs: Any) -> None:
        """Hook at every call of the model while a closure runs: counts its examples."""
        with contextlib.suppress(CurvlabError):  # a model without tensors to count is one example
            self._batch += batch_size(args or kwargs)

    def group_of(self, block: PreconditionerBlock) -> Mapping[str, Any]:
        """The parameter group of the block's first parameter."""
        first = next(iter(block.parameters.values()))
        return next(g for g in self.param_groups for p in g["params"] if self.names[id(p)] == first)

    def __deepcopy__(self, memo: Any) -> Any:
        """An optimizer is tied to its model: make one for the copied model and load this one's state."""
        raise CurvlabError(
            f"{self.name} cannot be copied", "it is tied to its model", "load its state_dict into a new one"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Constructor's arguments and state, the model with them; groups are part of the state."""
        args, kwargs = self._given
        settings = {name: value for name, value in kwargs.items() if name not in ("model", "groups")}
        return rebuilt, (type(self), self.model, args[1:], settings, self.saved_state())

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only, by parameter name: continuing after a load equals never having stopped."""
        return hooked_state(self)

    @torch.no_grad()
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a saved state; tensors take their parameter's device and floating type.

        Raises:
            CurvlabError: it is of another optimizer, or of a model with other parameters. Nothing has changed then.
        """
        load_hooked_state(self, state_dict)

    def saved_state(self) -> dict[str, Any]:
        """Hook of `state_dict`: what it holds; optimizers with more state add to it."""
        return saved(self)

    def restore_state(self, state_dict: Mapping[str, Any]) -> None:
        """Hook of `load_state_dict`: the inverse of `saved_state`."""
        check_state(self.name, state_dict, {self.names[id(p)]: list(p.shape) for p in self.parameters()})
        self._gathered, self._examples = {}, 0
        self.forget()
        restore(self, state_dict)


def finite(tensors: Mapping[str, Tensor]) -> bool:
    """Whether no tensor holds a NaN or an infinity, or numbers whose sum is one; reads the device once."""
    # A sum reads each number once and writes nothing; isfinite().all() costs four times as much.
    return not tensors or bool(torch.stack([t.sum() for t in tensors.values()]).isfinite().all())
