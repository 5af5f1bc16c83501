"""The core loop: gradient of a closure, a direction, and W ← W − α(p + γW); state by parameter name, failures guarded.

`step(closure)`: the closure runs the model and returns the mean loss, and calls no backward. `accumulate(closure)`
adds a batch to the next step, which then is the step on the joint batch. Optimizers that need gradients alone also
take `loss.backward(); step()`.
"""

from __future__ import annotations

import contextlib
import weakref
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from curvlab.capture.tape import batch_size
from curvlab.errors import CurvlabError
from curvlab.optim.hyperparameters import DECAY, RATE, Bound, check

Closure = Callable[[], Tensor]
Named = dict[str, Tensor]
"""Tensors by parameter name."""


class Optimizer(torch.optim.Optimizer):
    """W ← W − α(p + γW) with a direction p per parameter (decoupled decay: ren 3.7.2, 4.7.2).

    A step whose gradient is not finite changes nothing and is counted in `skipped`.

    Args:
        model: the network; frozen parameters are left alone.
        defaults: hyper-parameters of every group that does not set them.
        groups: parameter groups as `{"params": [names or parameters], "lr": ...}`; the rest of the parameters form
            one more.
            None: one group of all parameters.
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
        super().__init__(_grouped(model, groups), defaults)
        for group in self.param_groups:
            check(self.name, group, self.bounds)
        self.steps = 0
        self._batch = 0
        watcher = weakref.WeakMethod(self._count)
        model.register_forward_pre_hook(lambda _, args, kwargs: _call(watcher, args, kwargs), with_kwargs=True)
        self._skipped: Tensor | int = 0
        self._gathered: Named = {}
        self._examples = 0

    @property
    def skipped(self) -> int:
        """Number of steps that were not taken because the gradient was not finite."""
        return int(self._skipped)

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Tensor | None:  # type: ignore[override]
        """One update; returns the closure's loss.

        Raises:
            CurvlabError: the optimizer needs a closure and got none, or the closure did not run the model once.
        """
        loss = None if closure is None else self.accumulate(closure)
        examples = self._examples
        if self._gathered:
            gradients = {name: g / examples for name, g in self._gathered.items()}
            self._gathered, self._examples = {}, 0
        elif self.needs_closure:
            raise CurvlabError(
                f"{self.name} needs a closure", "it looks at the model while it runs", "call step(closure)"
            )
        else:
            gradients = {self.names[id(p)]: p.grad for p in self.parameters() if p.grad is not None}
        finite = all_finite(gradients)
        self._skipped = self._skipped + (~finite).long()
        self.prepare(gradients, finite, examples)
        self._apply(self.update(gradients, finite), finite)
        self.steps += 1
        return loss

    def accumulate(self, closure: Closure) -> Tensor:
        """Add a batch to the next step: losses are means, so that batches count by their number of examples."""
        with torch.enable_grad():
            loss, examples, gradients = self.evaluate(closure)
        for name, g in gradients.items():
            weighted = g * examples
            self._gathered[name] = self._gathered[name] + weighted if name in self._gathered else weighted
        self._examples += examples
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

    def prepare(self, gradients: Named, finite: Tensor, examples: int) -> None:
        """Hook before `update`: statistics and operators of a step on so many examples."""

    @abstractmethod
    def update(self, gradients: Named, finite: Tensor) -> Named:
        """Directions p from gradients, updating the state (nothing may change where `finite` is false)."""

    @abstractmethod
    def direction(self, gradients: Named) -> Named:
        """The preconditioned direction for given gradients; neither weights nor state change."""

    def parameters(self) -> list[Tensor]:
        """All parameters of all groups."""
        return [p for group in self.param_groups for p in group["params"]]

    def coverage(self) -> dict[str, str]:
        """Parameter name -> how it is treated."""
        return {self.names[id(p)]: self.name for p in self.parameters()}

    def heavy_ball(self, gradients: Named, finite: Tensor) -> Named:
        """m ← μm + g for every parameter with a gradient; returns m."""
        moved = {}
        for p, group in self._with_groups():
            name = self.names[id(p)]
            if name not in gradients:
                continue
            state = self.state[p]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(p)
            m = state["momentum"]
            m.copy_(torch.where(finite, m * group["momentum"] + gradients[name], m))
            moved[name] = m
        return moved

    def _apply(self, directions: Named, finite: Tensor) -> None:
        for p, group in self._with_groups():
            name = self.names[id(p)]
            if name in directions:
                step = group["lr"] * (directions[name] + group["weight_decay"] * p)
                p.sub_(torch.where(finite, step, torch.zeros_like(step)))

    def _count(self, args: Any, kwargs: Any) -> None:
        with contextlib.suppress(CurvlabError):  # a model without tensors to count is one example
            self._batch += batch_size(args or kwargs)

    def _with_groups(self) -> Iterable[tuple[Tensor, dict[str, Any]]]:
        return ((p, group) for group in self.param_groups for p in group["params"] if p.requires_grad)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only, by parameter name: continuing after a load equals never having stopped."""
        state = {self.names[id(p)]: dict(values) for p, values in self.state.items()}
        groups = [
            {
                **{k: v for k, v in group.items() if k != "params"},
                "params": [self.names[id(p)] for p in group["params"]],
            }
            for group in self.param_groups
        ]
        return {
            "optimizer": self.name,
            "steps": self.steps,
            "skipped": self.skipped,
            "state": state,
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
        self.steps, self._skipped = state_dict["steps"], state_dict["skipped"]
        self.param_groups = [{**g, "params": [byname[n] for n in g["params"]]} for g in state_dict["param_groups"]]
        self.state.clear()
        for name, values in state_dict["state"].items():
            p = byname[name]
            self.state[p] = {k: v.to(p.device).clone() if isinstance(v, Tensor) else v for k, v in values.items()}


def all_finite(tensors: Mapping[str, Tensor]) -> Tensor:
    """Whether no entry of any tensor is NaN or infinite: a tensor, so that the device is not asked."""
    if not tensors:
        return torch.tensor(True)
    return torch.stack([t.isfinite().all() for t in tensors.values()]).all()


def _call(watcher: weakref.WeakMethod[Any], args: Any, kwargs: Any) -> None:
    method = watcher()
    if method is not None:
        method(args, kwargs)


def _grouped(model: nn.Module, groups: Iterable[Mapping[str, Any]] | None) -> list[dict[str, Any]]:
    byname = dict(model.named_parameters())
    made: list[dict[str, Any]] = []
    taken: set[int] = set()
    for group in groups or ():
        chosen = []
        for item in group["params"]:
            if isinstance(item, str) and item not in byname:
                raise CurvlabError(f"a parameter group names {item!r}", "the model has no such parameter")
            chosen.append(byname[item] if isinstance(item, str) else item)
        taken.update(id(p) for p in chosen)
        made.append({**group, "params": chosen})
    rest = [p for p in byname.values() if id(p) not in taken]
    if rest:
        made.append({"params": rest})
    if not made:
        raise CurvlabError("the model has no parameters", "there is nothing to optimize")
    return made


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
