"""LNB: θ ← (1 − √ε ρ)θ − √(ε/z) θ̂ with Mθ̂ = ĝ per neuron, z = max(z₀, Σ θ̂·ĝ) over all of them (LNB, Alg. 1, 2)."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from curvlab.capture.batch_record import BatchRecord
from curvlab.capture.closures import Closure
from curvlab.capture.forward_backward import ForwardBackward
from curvlab.capture.sample import Sample
from curvlab.capture.survey import Survey
from curvlab.curvatures.blocks import PreconditionerBlock, refuse_unmeasured
from curvlab.errors import CurvlabError
from curvlab.field_types import DECAY, FROM_ONE, FROM_ZERO
from curvlab.fields import Setting
from curvlab.optim.core import Named, Optimizer
from curvlab.optim.lnb.debiased import share_of_new
from curvlab.optim.lnb.neuron_stack import NeuronStack, packed
from curvlab.optim.lnb.neurons import Seen, neurons, same_features, seen
from curvlab.optim.lnb.normal_equation import NormalEquation, boosted, boosted_exactly
from curvlab.optim.registry import register
from curvlab.optim.working_type import working_type

ONLINE = {"online": (True,)}
CONVERGED = 300
"""CG iterations where the solution itself is asked for; far more than neurons need."""


@register("lnb", source="LNB, Alg. 1, 2")
class LNB(Optimizer):
    """Linear neuron boosting: gradient descent in the function space of every neuron, which whitens its features.

    A step is √ε long in that space, summed over all neurons; below the norm z₀ it is a Newton-like step with the rate
    √(ε/z₀). Labels play no part in the metric, so that it needs no likelihood and no second backward.

    Args:
        model: the network.
        groups: parameter groups with lr, ridge or weight_decay of their own; a neuron has its first parameter's
            ridge.

    Attributes:
        blocks: the neurons; known after the first step.
        averages: neuron -> μ ("mean", of a neuron with a bias) and χ ("square").
        measured: neuron -> number of batches in them.
    """

    needs_closure = batches_joined = True
    recorder: ForwardBackward
    swept = "ridge"
    at_fixed_weights: ClassVar[Mapping[str, Any]] = {"online": False}  # the metric of all batches, solved exactly

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: Annotated[float, Setting("ε, the squared length of a step; what schedulers change.", FROM_ZERO)] = 1e-2,
        ridge: Annotated[
            float, Setting("γ, added to the metric of weights, never to that of biases.", FROM_ZERO, symbol="γ")
        ] = 1e-3,
        minimum_norm: Annotated[float, Setting("z₀.", FROM_ZERO)] = 1.0,
        momentum: Annotated[float, Setting("β of the debiased average ĝ of the gradient.", DECAY, when=ONLINE)] = 0.9,
        decay: Annotated[
            float, Setting("β of the debiased averages μ and χ of the features and their squares.", DECAY, when=ONLINE)
        ] = 0.9,
        iterations: Annotated[int, Setting("Iterations of CG, from the last solution.", FROM_ONE, when=ONLINE)] = 2,
        weight_decay: Annotated[
            float,
            Setting("ρ, in function space: weights shrink by 1 − √ε ρ, biases too (LNB, section 2.3.1).", FROM_ZERO),
        ] = 0.0,
        online: Annotated[
            bool, Setting("False is Algorithm 1, for full batches: exact solves in float64, and no averages.")
        ] = True,
        groups: Iterable[Mapping[str, Any]] | None = None,
    ) -> None:
        self.schedule: dict[str, Any] = {
            "minimum_norm": minimum_norm,
            "momentum": momentum if online else 0.0,
            "decay": decay if online else 0.0,
            "iterations": iterations,
            "online": online,
        }
        super().__init__(model, {"lr": lr, "ridge": ridge, "weight_decay": weight_decay}, groups)
        self.recorder = ForwardBackward(
            model, self.name, output_gradients=False, wanted=lambda found: {one.name for one in _neurons(model, found)}
        )
        self.blocks: list[PreconditionerBlock] = []
        self.measured: dict[str, int] = {}
        # Half precision has no Cholesky factors.
        self._dtype = working_type(self.parameters())
        self._gathering: dict[str, Seen] = {}
        self._seen: dict[str, Seen] = {}
        self._plan: list[tuple[Hashable, list[str]]] = []
        self._stacks: list[NeuronStack] = []

    def measure(self, closure: Closure, first: bool) -> BatchRecord:
        """Loss and gradients of a batch; what its features show joins the step's metrics."""
        if first:
            self._seen, self._gathering = {}, {}  # of the step before: `direction` had them until now
            for stack in self._stacks:
                stack.look(self._seen)
        record = self.recorder.closure(closure, self.trainable())
        if not self.blocks:
            self.blocks = _neurons(self.model, self.recorder.found)
        refuse_unmeasured(self.name, self.blocks, record)
        with torch.no_grad(), self.full_precision():
            self._gather({one.name: record.inputs[one.name] for one in self.blocks if one.name in record.inputs})
        return record

    def _gather(self, samples: Mapping[str, Sample]) -> None:
        """Add a batch's features to those of the step's other batches; neurons with the same input share them."""
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

    def average(self, gradients: Named, examples: int) -> None:
        """μ ← ema(μ, mean(X)), χ ← ema(χ, mean(X⊙X)) (lines 6, 7); features that are not finite are left out."""
        self._seen, self._gathering = self._gathering, {}
        for name, shown in self._seen.items():
            shown.check()
            self.measured[name] = self.measured.get(name, 0) + 1
        for stack in self._stacked():
            stack.look(self._seen)
            counts = (self.measured[slot[0].name] for slot in stack.slots)
            stack.average([share_of_new(self.schedule["decay"], count) for count in counts])

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
        solved = {name for stack in self._stacks for name in stack.names} if self.schedule["online"] else set()
        for p in self.parameters():
            if (name := self.names[id(p)]) in solved and name in directions:
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
        whole = [unit.parameters.values() for unit in self.blocks if gradients.keys() >= set(unit.parameters.values())]
        known = {name: gradients[name] for names in whole for name in names}
        stacks = [stack for stack in self._stacked() if not stack.names.isdisjoint(known)]
        equations = [self._equation(stack, known, last) for stack in stacks]
        if self.schedule["online"]:
            solutions = [boosted(equation, self.schedule["iterations"]) for equation in equations]
        else:
            solutions = boosted_exactly(equations)
        inner = [torch.dot(e.gradient.flatten(), s.flatten()) for e, s in zip(equations, solutions, strict=True)]
        directions = dict(gradients)
        for stack, solution in zip(stacks, solutions, strict=True):
            for name, part in stack.parted(solution).items():
                if name in known:
                    directions[name] = part if part.dtype == known[name].dtype else part.to(known[name].dtype)
        plain = [d for name, d in directions.items() if d is gradients[name]]
        if plain:
            inner.append(torch.stack(torch._foreach_norm(plain)).to(self._dtype).square().sum())
        return directions, torch.stack(inner).sum()

    def _equation(self, stack: NeuronStack, gradients: Named, last: Named) -> NormalEquation:
        mean, square = stack.moments
        ridge: float = self.group_of(stack.slots[0][0])["ridge"]
        started = None if stack.names.isdisjoint(last) else stack.joined(last, self._dtype)
        return NormalEquation(stack.joined(gradients, self._dtype), mean, square, ridge, stack.metric, started)

    def _stacked(self) -> list[NeuronStack]:
        """All neurons that can be solved, in stacks that stay while the same ones can be together."""
        slots = self._slots()
        plan = [(kind, [unit.name for unit in units]) for kind, units in slots]
        if plan != self._plan:
            alike: dict[Hashable, list[list[PreconditionerBlock]]] = {}
            for kind, units in slots:
                alike.setdefault(kind, []).append(units)
            self._plan, self._stacks = plan, [stack for members in alike.values() for stack in packed(members)]
            zero = self.parameters()[0].new_zeros((), dtype=self._dtype)
            for stack in self._stacks:
                self.averages.update(stack.begin(self.averages, zero))
                stack.look(self._seen)
        return self._stacks

    def _slots(self) -> list[tuple[Hashable, list[PreconditionerBlock]]]:
        """Neurons that share a matrix M, and the kind of their equation: those of one kind can be in one stack."""
        ridges = {self.names[id(p)]: group["ridge"] for group in self.param_groups for p in group["params"]}
        slots: dict[Hashable, tuple[Hashable, list[PreconditionerBlock]]] = {}
        for unit in self.blocks:
            shown, old = self._seen.get(unit.name), self.averages.get(unit.name)
            if shown is None and old is None:
                continue
            kind: Hashable = unit.name  # by itself
            slot: Hashable = unit.name
            if shown is not None and shown.metric is not None and not shown.metric.inputs:
                ridge = ridges[next(iter(unit.parameters.values()))]
                kind = ridge if self.schedule["online"] else unit.name
                if unit.shape[0] == 1:
                    slot = id(shown), id(old and old["square"]), self.measured[unit.name], ridge
            slots.setdefault(slot, (kind, []))[1].append(unit)
        return list(slots.values())

    @contextmanager
    def damped(self, value: float) -> Iterator[None]:
        """As `Optimizer.damped`. CG does not start from its last solution, which is another ridge's, and runs until it
        converges."""
        solutions = {p: state.pop("solution") for p, state in self.state.items() if "solution" in state}
        iterations, self.schedule["iterations"] = self.schedule["iterations"], CONVERGED
        try:
            with super().damped(value):
                yield
        finally:
            self.schedule["iterations"] = iterations
            for p, solution in solutions.items():
                self.state[p]["solution"] = solution

    def move(self, directions: Named) -> None:
        """θ ← (1 − √ε ρ)θ − √ε θ̂/√z (lines 12, 14)."""
        for group, names, parameters in self.by_group(directions):
            if group["lr"] < 0:
                raise CurvlabError(f"lnb: lr is {group['lr']:g}", "a step is √lr long", "keep it from 0 on")
            length = math.sqrt(group["lr"])
            if group["weight_decay"]:
                torch._foreach_mul_(parameters, 1 - length * group["weight_decay"])
            torch._foreach_add_(parameters, [directions[name] for name in names], alpha=-length)

    def coverage(self) -> dict[str, str]:
        """Parameter name -> its metric; known after the first step."""
        inside = {name for unit in self.blocks for name in unit.parameters.values()}
        names = (self.names[id(p)] for p in self.parameters())
        return {name: self.name if name in inside else "identity metric: no neuron of its own" for name in names}

    def saved_state(self) -> dict[str, Any]:
        """With μ and χ of every neuron."""
        averages = {name: dict(moments) for name, moments in self.averages.items()}
        return {**super().saved_state(), "averages": averages, "measured": dict(self.measured)}

    def restore_state(self, state_dict: Mapping[str, Any]) -> None:
        """As `Optimizer.restore_state`; averages move to the model's device."""
        super().restore_state(state_dict)
        device = self.parameters()[0].device
        copies: dict[int, Tensor] = {}  # neurons that share their averages go on doing so
        self.averages = {name: {} for name in state_dict["averages"]}
        for name, moments in state_dict["averages"].items():
            for key, value in moments.items():
                self.averages[name][key] = copies.setdefault(id(value), value.to(device).clone())
        self.measured = dict(state_dict["measured"])
        self._seen, self._plan, self._stacks = {}, [], []


def _neurons(model: nn.Module, found: Survey | None) -> list[PreconditionerBlock]:
    return neurons(found, {name: p for name, p in model.named_parameters() if p.requires_grad})
