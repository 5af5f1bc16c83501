"""LNB: θ ← (1 − √ε ρ)θ − √(ε/z) θ̂ with Mθ̂ = ĝ per neuron, z = max(z₀, Σ θ̂·ĝ) over all of them (lnb Alg. 1, 2)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from curvlab.capture.sample import Sample
from curvlab.curvatures.curvature import Unit
from curvlab.curvatures.lnb import Seen, neurons, seen
from curvlab.curvatures.normal_equation import NormalEquation, boosted, boosted_exactly, ridged
from curvlab.optim.core import Closure, Named, Optimizer
from curvlab.optim.hyperparameters import DECAY, INTERVAL, RATE, Bound, check
from curvlab.optim.watch import Watch
from curvlab.statistics.debiased import blended, share_of_new


class LNB(Optimizer):
    """Linear neuron boosting: gradient descent in the function space of every neuron, which whitens its features.

    A step is √ε long in that space, summed over all neurons; below the norm z₀ it is a Newton-like step with the rate
    √(ε/z₀). Labels play no part in the metric, so that it needs no likelihood and no second backward.

    Args:
        model: the network.
        lr: ε, the squared length of a step; what schedulers change.
        ridge: γ, added to the metric of weights, never to that of biases.
        minimum_norm: z₀.
        momentum: β of the debiased average ĝ of the gradient.
        decay: β of the debiased averages μ and χ of the features and of their squares.
        iterations: of CG, from the last solution.
        weight_decay: ρ, in function space: weights shrink by 1 − √ε ρ, biases too (lnb 2.3.1).
        online: False is Algorithm 1, for full batches: exact solves in float64, and no averages.
        groups: parameter groups with lr, ridge or weight_decay of their own; a neuron has its first parameter's
            ridge.

    Attributes:
        units: the neurons; known after the first step.
        averages: neuron -> μ ("mean") and χ ("square").
        measured: neuron -> number of batches in them.
    """

    name = "lnb"
    needs_closure = True
    bounds: ClassVar[Mapping[str, Bound]] = {
        "lr": RATE,
        "ridge": RATE,
        "minimum_norm": RATE,
        "momentum": DECAY,
        "decay": DECAY,
        "iterations": INTERVAL,
        "weight_decay": RATE,
        "online": Bound(choices=(True, False)),
    }

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: float = 1e-2,
        ridge: float = 1e-3,
        minimum_norm: float = 1.0,
        momentum: float = 0.9,
        decay: float = 0.9,
        iterations: int = 2,
        weight_decay: float = 0.0,
        online: bool = True,
        groups: Iterable[Mapping[str, Any]] | None = None,
    ) -> None:
        self.schedule: dict[str, Any] = {
            "minimum_norm": minimum_norm,
            "momentum": momentum if online else 0.0,
            "decay": decay if online else 0.0,
            "iterations": iterations,
            "online": online,
        }
        check(self.name, {**self.schedule, "momentum": momentum, "decay": decay}, self.bounds)
        super().__init__(model, {"lr": lr, "ridge": ridge, "weight_decay": weight_decay}, groups)
        self.watch = Watch(model, self.name, signals=False)
        self.units: list[Unit] = []
        self.averages: dict[str, dict[str, Tensor]] = {}
        self.measured: dict[str, int] = {}
        self._gathering: dict[str, Seen] = {}
        self._seen: dict[str, Seen] = {}

    def evaluate(self, closure: Closure) -> tuple[Tensor, int, Named]:
        """Loss, examples and gradients of a batch; what its features show joins the step's metrics."""
        if not self._gathering:
            self._seen = {}  # of the step before: `direction` had it until now
        shown = self.watch.run(closure, self.gradients_of, None)
        if not self.units:
            trainable = {self.names[id(p)]: p for p in self.parameters() if p.requires_grad}
            self.units = neurons(self.watch.found, trainable)
        with torch.no_grad(), self.full_precision():
            for unit in self.units:
                if unit.name in shown.samples:
                    new = self._look(shown.samples[unit.name])
                    old = self._gathering.get(unit.name)
                    self._gathering[unit.name] = new if old is None else old.joined(new)
        return shown.loss, shown.examples, shown.gradients

    def _look(self, sample: Sample) -> Seen:
        if self.schedule["online"]:
            return seen(sample, self.schedule["iterations"] + 1)
        return seen(Sample(sample.calls, sample.examples, torch.float64), None)

    def prepare(self, gradients: Named, examples: int) -> None:
        """μ ← ema(μ, mean(X)), χ ← ema(χ, mean(X⊙X)) (lines 6, 7); features that are not finite are left out."""
        self._seen, self._gathering = self._gathering, {}
        dtype = self.parameters()[0].dtype
        for name, shown in self._seen.items():
            shown.check()
            count = self.measured[name] = self.measured.get(name, 0) + 1
            share = share_of_new(self.schedule["decay"], count)
            self.averages[name] = blended(self.averages.get(name, {}), shown.moments(dtype), share)

    def forget(self) -> None:
        """The features of a batch whose gradient is not finite are left out."""
        self._gathering = {}

    def update(self, gradients: Named) -> Named:
        """θ̂/√z for ĝ ← ema(ĝ, g) (lines 4, 10, 13)."""
        averaged: Named = {}
        for _, names, parameters in self.by_group(gradients):
            for name, p in zip(names, parameters, strict=True):
                state = self.state[p]
                if not state:
                    state.update(gradient=torch.zeros_like(p), count=0)
                state["count"] += 1
                share = share_of_new(self.schedule["momentum"], state["count"])
                averaged[name] = state["gradient"].lerp_(gradients[name], share)
        directions = self.direction(averaged)
        inner = torch.stack([(directions[name] * g).sum() for name, g in averaged.items()]).sum()
        z = inner.clamp(min=self.schedule["minimum_norm"])
        self._keep(directions)
        scale = z.rsqrt().where(z > 0, 0.0)
        return {name: d * scale for name, d in directions.items()}

    def _keep(self, directions: Named) -> None:
        """Solutions are where the next step's CG starts."""
        solved = {name for unit in self.units for name in unit.parameters.values()}
        for _, names, parameters in self.by_group(directions) if self.schedule["online"] else ():
            for name, p in zip(names, parameters, strict=True):
                if name in solved:
                    self.state[p]["solution"] = directions[name]

    @torch.no_grad()
    def direction(self, gradients: Named) -> Named:
        """θ̂: M⁻¹g for every neuron in the metric of the last step's batch, g for all else.

        A neuron that this batch did not reach has its preconditioner for M⁻¹.
        """
        known = [u for u in self.units if u.name in self.averages and gradients.keys() >= set(u.parameters.values())]
        last = {self.names[id(p)]: state["solution"] for p, state in self.state.items() if "solution" in state}
        equations = [self._equation(unit, gradients, last) for unit in known]
        online, iterations = self.schedule["online"], self.schedule["iterations"]
        solutions = boosted(equations, iterations) if online else boosted_exactly(equations)
        directions = dict(gradients)
        for unit, solution in zip(known, solutions, strict=True):
            directions.update(unit.take_apart(solution, gradients))
        return directions

    def _equation(self, unit: Unit, gradients: Named, last: Named) -> NormalEquation:
        moments, ridge, shown = self.averages[unit.name], self.group_of(unit)["ridge"], self._seen.get(unit.name)
        metric = None if shown is None else shown.metric
        start = unit.assemble(last) if all(name in last for name in unit.parameters.values()) else None
        known = metric if metric is None or metric.inputs else ridged(metric, ridge)
        return NormalEquation(unit.assemble(gradients), moments["mean"], moments["square"], ridge, known, start)

    def move(self, directions: Named) -> None:
        """θ ← (1 − √ε ρ)θ − √ε θ̂/√z (lines 12, 14)."""
        for group, names, parameters in self.by_group(directions):
            length = math.sqrt(group["lr"])
            if group["weight_decay"]:
                torch._foreach_mul_(parameters, 1 - length * group["weight_decay"])
            torch._foreach_add_(parameters, [directions[name] for name in names], alpha=-length)

    def coverage(self) -> dict[str, str]:
        """Parameter name -> its metric; known after the first step."""
        inside = {name for unit in self.units for name in unit.parameters.values()}
        names = (self.names[id(p)] for p in self.parameters())
        return {name: self.name if name in inside else "identity metric: no neuron of its own" for name in names}

    def state_dict(self) -> dict[str, Any]:
        """With μ and χ of every neuron."""
        averages = {name: dict(moments) for name, moments in self.averages.items()}
        return {**super().state_dict(), "averages": averages, "measured": dict(self.measured)}

    @torch.no_grad()
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """As `Optimizer.load_state_dict`; averages move to the model's device."""
        super().load_state_dict(state_dict)
        device = self.parameters()[0].device
        self.averages = {
            name: {key: value.to(device).clone() for key, value in moments.items()}
            for name, moments in state_dict["averages"].items()
        }
        self.measured = dict(state_dict["measured"])
        self._seen = {}
