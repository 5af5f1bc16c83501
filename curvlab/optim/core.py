"""The core loop: gradient of a closure, a direction, and W ← W − α(p + γW); state by parameter name, failures guarded.

`step(closure)`: the closure runs the model and returns the mean loss, and calls no backward. `accumulate(closure)`
adds a batch to the next step, which then is the step on the joint batch. Optimizers that need gradients alone also
take `loss.backward(); step()`.
"""

from __future__ import annotations

import contextlib
import weakref
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from curvlab.capture.tape import batch_size
from curvlab.errors import CurvlabError
from curvlab.optim.hyperparameters import DECAY, RATE, Bound, check
from curvlab.optim.parameter_groups import parameter_groups

Closure = Callable[[], Tensor]
Named = dict[str, Tensor]
"""Tensors by parameter name."""


class Optimizer(torch.optim.Optimizer):
    """W ← W − α(p + γW) with a direction p per parameter (decoupled decay: ren 3.7.2, 4.7.2).

    A step whose gradient is not finite changes nothing and is counted in `skipped`. That is the one answer a step
    waits for from the device.

    Args:
        model: the network; frozen parameters are left alone.
        defaults: hyper-parameters of every group that does not set them.
        groups: parameter groups as `{"params": [names or parameters], "lr": ...}`; the rest of the parameters form
            one more. None: one group of all parameters.

    Attributes:
        steps: number of calls of `step`.
        skipped: number of those that were not taken because the gradient was not finite.
    """

    name: ClassVar[str]
    bounds: ClassVar[Mapping[str, Bound]] = {"lr": RATE, "momentum": DECAY, "weight_decay": RATE}
    needs_closure: ClassVar[bool] = False

    def __init__(
        self, model: nn.Module, defaults: dict[str, Any], groups: Iterable[Mapping[str, Any]] | None = None
    ) -> None:
        self.model = model
        self.names = {id(p): name for name, p in model.named_parameters()}
        check(self.name, defaults, self.bounds)
        super().__init__(parameter_groups(model, groups), defaults)
        for group in self.param_groups:
            check(self.name, group, self.bounds)
        self.steps = self.skipped = 0
        self._batch = 0
        watcher = weakref.WeakMethod(self._count)
        model.register_forward_pre_hook(lambda _, args, kwargs: _call(watcher, args, kwargs), with_kwargs=True)
        self._gathered: Named = {}
        self._examples = 0

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Tensor | None:  # type: ignore[override]
        """One update; returns the closure's loss.

        Raises:
            CurvlabError: the optimizer needs a closure and got none, or the closure did not run the model once.
        """
        loss = None if closure is None else self.accumulate(closure)
        gradients, examples = self._gathered, self._examples
        self._gathered, self._examples = {}, 0
        if not gradients:
            if self.needs_closure and closure is None:
                raise CurvlabError(
                    f"{self.name} needs a closure", "it looks at the model while it runs", "call step(closure)"
                )
            gradients = {self.names[id(p)]: p.grad for p in self.parameters() if p.grad is not None}
        with self.full_precision():
            if finite(gradients):
                self.prepare(gradients, examples)
                self.move(self.update(gradients))
            else:
                self.forget()
                self.skipped += 1
        torch.clear_autocast_cache()  # inside an autocast region the next forward would see copies of the old weights
        self.steps += 1
        return loss

    def accumulate(self, closure: Closure) -> Tensor:
        """Add a batch to the next step: losses are means, so that batches count by their number of examples."""
        with torch.enable_grad():
            loss, examples, fresh = self.evaluate(closure)
        self._examples += examples
        share = examples / self._examples
        if share == 1:
            self._gathered = fresh
            return loss
        for name in {**self._gathered, **fresh}:
            old, new = self._gathered.get(name), fresh.get(name)
            if old is None or new is None:  # a parameter that some batch does not use has a zero gradient there
                self._gathered[name] = fresh[name] * share if old is None else old * (1 - share)
            else:
                self._gathered[name] = torch.lerp(old, new, share)
        return loss

    def evaluate(self, closure: Closure) -> tuple[Tensor, int, Named]:
        """Loss, number of examples (1 if the closure never runs the model) and gradients of the loss."""
        self._batch = 0
        loss = checked_loss(self.name, closure())
        return loss.detach(), max(1, self._batch), self.gradients_of(loss)

    def gradients_of(self, loss: Tensor, retain_graph: bool = False) -> Named:
        """∂loss/∂W of every trainable parameter that the loss depends on."""
        trainable = [p for p in self.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(loss, trainable, retain_graph=retain_graph, allow_unused=True)
        return {self.names[id(p)]: g for p, g in zip(trainable, gradients, strict=True) if g is not None}

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

    def _count(self, args: Any, kwargs: Any) -> None:
        with contextlib.suppress(CurvlabError):  # a model without tensors to count is one example
            self._batch += batch_size(args or kwargs)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only, by parameter name: continuing after a load equals never having stopped."""
        groups = [{**group, "params": [self.names[id(p)] for p in group["params"]]} for group in self.param_groups]
        return {
            "optimizer": self.name,
            "steps": self.steps,
            "skipped": self.skipped,
            "state": {self.names[id(p)]: dict(values) for p, values in self.state.items()},
            "param_groups": groups,
        }

    @torch.no_grad()
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a saved state; tensors move to their parameter's device.

        Raises:
            CurvlabError: it is of another optimizer, or of a model with other parameters.
        """
        if state_dict.get("optimizer") != self.name:
            raise CurvlabError(f"a state of {state_dict.get('optimizer')!r} cannot be loaded into {self.name}")
        byname = dict(self.model.named_parameters())
        unknown = sorted(
            {*state_dict["state"], *(n for g in state_dict["param_groups"] for n in g["params"])} - set(byname)
        )
        if unknown:
            raise CurvlabError(f"the saved state has a parameter {unknown[0]!r}", "the model has none of that name")
        self.steps, self.skipped = state_dict["steps"], state_dict["skipped"]
        self.param_groups = [{**g, "params": [byname[n] for n in g["params"]]} for g in state_dict["param_groups"]]
        self.state.clear()
        for name, values in state_dict["state"].items():
            p = byname[name]
            self.state[p] = {k: v.to(p.device).clone() if isinstance(v, Tensor) else v for k, v in values.items()}


def finite(tensors: Mapping[str, Tensor]) -> bool:
    """Whether no tensor holds a NaN or an infinity, or numbers whose sum is one; reads the device once."""
    # A sum reads each number once and writes nothing; isfinite().all() costs four times as much.
    return not tensors or bool(torch.stack([t.sum() for t in tensors.values()]).isfinite().all())


def _call(watcher: weakref.WeakMethod[Any], args: Any, kwargs: Any) -> None:
    method = watcher()
    if method is not None:
        method(args, kwargs)


def checked_loss(name: str, loss: Any) -> Tensor:
    """The loss, if it is a scalar tensor with a graph; CurvlabError otherwise."""
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise CurvlabError(
            f"{name}: the closure returned {type(loss).__name__}", "it must return the mean loss, a scalar tensor"
        )
    if not loss.requires_grad:
        raise CurvlabError(
            f"{name}: the closure's loss has no graph",
            "nothing can be differentiated",
            "do not call backward in the closure",
        )
    return loss
