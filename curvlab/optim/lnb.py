"""LNB: θ ← (1 − √ε ρ)θ − √(ε/z) θ̂ with Mθ̂ = ĝ per neuron, z = max(z₀, Σ θ̂·ĝ) over all of them (lnb Alg. 1, 2)."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from curvlab.capture.sample import Sample
from curvlab.curvatures.curvature import Unit
from curvlab.curvatures.lnb import Seen, averaged, neurons, same_features, seen
from curvlab.curvatures.normal_equation import NormalEquation, boosted, boosted_exactly
from curvlab.optim.closures import Closure
from curvlab.optim.core import Named, Optimizer
from curvlab.optim.hyperparameters import DECAY, INTERVAL, RATE, Bound, check
from curvlab.optim.watch import Watch
from curvlab.statistics.debiased import share_of_new


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
        # Half precision has no Cholesky factors.
        self._dtype = torch.promote_types(self.parameters()[0].dtype, torch.float32)
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
            self._gather({u.name: shown.samples[u.name] for u in self.units if u.name in shown.samples})
        return shown.loss, shown.examples, shown.gradients

    def _gather(self, samples: Mapping[str, Sample]) -> None:
        """What a batch shows, beside what the step's other batches have shown; neurons that see the same share it."""
        new: dict[Hashable, Seen] = {}
        both: dict[tuple[Hashable, int], Seen] = {}
        for name, sample in samples.items():
            key, old = same_features(sample), self._gathering.get(name)
            if key not in new:
                new[key] = self._look(sample)
            if old is not None and (key, id(old)) not in both:
                both[key, id(old)] = old.joined(new[key])
            self._gathering[name] = new[key] if old is None else both[key, id(old)]

    def _look(self, sample: Sample) -> Seen:
        if self.schedule["online"]:
            return seen(sample, self.schedule["iterations"] + 1)
        return seen(Sample(sample.calls, sample.examples, torch.float64), None)

    def prepare(self, gradients: Named, examples: int) -> None:
        """μ ← ema(μ, mean(X)), χ ← ema(χ, mean(X⊙X)) (lines 6, 7); features that are not finite are left out."""
        self._seen, self._gathering = self._gathering, {}
        shared: dict[tuple[int, int, int], list[str]] = {}
        for name, shown in self._seen.items():
            shown.check()
            self.measured[name] = self.measured.get(name, 0) + 1
            old = self.averages.setdefault(name, {})
            mark = id(old["square"]) if old else 0
            shared.setdefault((id(shown), mark, self.measured[name]), []).append(name)
        firsts = [names[0] for names in shared.values()]
        fresh = averaged(
            [self.averages[name] for name in firsts],
            [self._seen[name] for name in firsts],
            [share_of_new(self.schedule["decay"], self.measured[name]) for name in firsts],
            self._dtype,
        )
        for names, averages in zip(shared.values(), fresh, strict=True):
            self.averages.update(dict.fromkeys(names, averages))

    def forget(self) -> None:
        """The features of a batch whose gradient is not finite are left out."""
        self._gathering = {}

    def update(self, gradients: Named) -> Named:
        """θ̂/√z for ĝ ← ema(ĝ, g) (lines 4, 10, 13)."""
        averaged: Named = {}
        for _, names, parameters in self.by_group(gradients):
            alike: dict[float, list[tuple[str, Tensor]]] = {}
            for name, p in zip(names, parameters, strict=True):
                state = self.state[p]
                if not state:
                    state.update(gradient=torch.zeros_like(p), count=0)
                state["count"] += 1
                share = share_of_new(self.schedule["momentum"], state["count"])
                alike.setdefault(share, []).append((name, state["gradient"]))
            for share, members in alike.items():
                torch._foreach_lerp_([average for _, average in members], [gradients[n] for n, _ in members], share)
                averaged.update(members)
        directions, inner = self._solve(averaged)
        z = inner.clamp(min=self.schedule["minimum_norm"])
        self._keep(directions)
        scale = z.rsqrt().where(z > 0, 0.0)
        return dict(zip(directions, torch._foreach_mul(list(directions.values()), scale), strict=True))

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
        return self._solve(gradients)[0]

    def _solve(self, gradients: Named) -> tuple[Named, Tensor]:
        """θ̂, and Σ θ̂·g over all parameters."""
        last = {self.names[id(p)]: state["solution"] for p, state in self.state.items() if "solution" in state}
        ridges = {self.names[id(p)]: group["ridge"] for group in self.param_groups for p in group["params"]}
        solved = self._shared(gradients, last, ridges)
        equations = [self._equation(units, gradients, last, ridges) for units in solved]
        online, iterations = self.schedule["online"], self.schedule["iterations"]
        solutions = boosted(equations, iterations) if online else boosted_exactly(equations)
        inner = [torch.dot(e.gradient.flatten(), s.flatten()) for e, s in zip(equations, solutions, strict=True)]
        directions = dict(gradients)
        for units, solution in zip(solved, solutions, strict=True):
            for unit, part in zip(units, torch.split(solution, [unit.shape[1] for unit in units], dim=1), strict=True):
                for name, direction in unit.take_apart(part, gradients).items():
                    directions[name] = direction.to(gradients[name].dtype)
        plain = [d for name, d in directions.items() if d is gradients[name]]
        inner += [norm.to(self._dtype).square() for norm in torch._foreach_norm(plain)] if plain else []
        return directions, torch.stack(inner).sum()

    def _shared(self, gradients: Named, last: Named, ridges: Mapping[str, float]) -> list[list[Unit]]:
        """Neurons that can be solved: those that share a matrix M together, as one with more outputs."""
        found: dict[Hashable, list[Unit]] = {}
        for unit in self.units:
            names = unit.parameters.values()
            if not self.averages.get(unit.name) or not gradients.keys() >= set(names):
                continue
            shown = self._seen.get(unit.name)
            key: Hashable = unit.name
            if shown is not None and shown.metric is not None and not shown.metric.inputs and unit.shape[0] == 1:
                started = all(name in last for name in names)
                key = id(shown), id(self.averages[unit.name]["square"]), ridges[next(iter(names))], started
            found.setdefault(key, []).append(unit)
        return list(found.values())

    def _equation(
        self, units: Sequence[Unit], gradients: Named, last: Named, ridges: Mapping[str, float]
    ) -> NormalEquation:
        first = units[0]
        moments, shown = self.averages[first.name], self._seen.get(first.name)
        started = all(name in last for name in first.parameters.values())

        def joined(tensors: Named) -> Tensor:
            parts = [unit.assemble(tensors).to(self._dtype) for unit in units]
            return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

        return NormalEquation(
            joined(gradients),
            moments["mean"],
            moments["square"],
            ridges[next(iter(first.parameters.values()))],  # the first parameter's
            None if shown is None else shown.metric,
            joined(last) if started else None,
        )

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
        copies: dict[int, Tensor] = {}  # neurons that share their averages go on doing so
        self.averages = {name: {} for name in state_dict["averages"]}
        for name, moments in state_dict["averages"].items():
            for key, value in moments.items():
                self.averages[name][key] = copies.setdefault(id(value), value.to(device).clone())
        self.measured = dict(state_dict["measured"])
        self._seen = {}
