"""The Kronecker-factored quasi-Newton step: p = H_G m H_A, W ← W − α(p + γW), the batch again, H ← BFGS(H, s, y)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar

import torch
from torch import nn

from curvlab.capture.batch_record import BatchRecord
from curvlab.capture.closures import Closure
from curvlab.capture.forward_backward import ForwardBackward
from curvlab.capture.survey import Survey
from curvlab.curvatures.blocks import PreconditionerBlock, refuse_unmeasured
from curvlab.errors import CurvlabError
from curvlab.optim.blocks_in_use import BlocksInUse
from curvlab.optim.core import Named, Optimizer, finite
from curvlab.optim.joint_gradient import JointGradient
from curvlab.optim.kbfgs.inverses import tallies
from curvlab.optim.kbfgs.layer_inverses import Before, LayerInverses
from curvlab.optim.kbfgs.recipe import Recipe, Shown, quasi_newton_blocks, shown
from curvlab.optim.kbfgs.second_sample import Part, Sampler
from curvlab.optim.saved_state import moved
from curvlab.optim.working_type import working_type


class KroneckerQuasiNewton(Optimizer):
    """An optimizer whose inverses learn from pairs (s, y): of h and ∂ℓ/∂h by a second sample, of A by its action.

    Args:
        model: the network.
        lr: α.
        damping: λ. Parameters of no block follow the gradient's average at the rate α/λ (Ren 2022, section 3.4.3).
        settings: see `QuasiNewtonSettings`, complete.
        recipe: what else `Recipe` takes.

    Attributes:
        averages: layer -> A, where it is averaged.
        inverses: H_A and H_G of all of them.
    """

    needs_closure: ClassVar[bool] = True
    warms: ClassVar[bool] = True
    learns_from_steps: ClassVar[bool] = True
    averages_gradient: ClassVar[bool] = False
    """Whether m ← βm + (1 − β)g and not βm + g."""

    def __init__(self, model: nn.Module, lr: float, damping: float, settings: Mapping[str, Any], **recipe: Any) -> None:
        own = ("interval", "double_gradient", "skip", "mu", "decay")
        self.schedule: dict[str, Any] = {name: settings[name] for name in own}
        recipe |= {name: settings[name] for name in ("skip", "mu", "decay")}
        defaults = {"lr": lr, "damping": damping, **{name: settings[name] for name in ("momentum", "weight_decay")}}
        super().__init__(model, defaults, settings.get("groups"))
        self.recipe = Recipe(**recipe)
        self.inverses = LayerInverses(self.recipe)
        self.averages = self.inverses.averages
        self.sampler = Sampler(ForwardBackward(model, self.name))
        self._looking: ForwardBackward | None = None
        """Sees inputs alone, during a warm start."""
        self.in_use = BlocksInUse(self.trainable, lambda names: quasi_newton_blocks(self._survey, names))
        self._shown: dict[str, Shown] = {}
        self._pending: tuple[list[Part], dict[str, Before]] = [], {}
        self._second = JointGradient()
        """Of the second sample of the step before."""
        self._examples_now = 0
        self._dtype = working_type(self.parameters())

    @property
    def blocks(self) -> list[PreconditionerBlock]:
        """The layers with inverses; known after the first step."""
        return self.in_use.blocks

    @property
    def _survey(self) -> Survey | None:
        return (self._looking or self.sampler.recorder).found

    # What a batch shows.

    def measure(self, closure: Closure, first: bool) -> BatchRecord:
        """Loss and gradients of a batch; where an update is due, what it shows of every layer as well."""
        if first:
            self.sampler.take()
            self._shown, self._pending = {}, ([], {})
        if self.warming:
            return self._inputs_alone(closure)
        due = self.steps % self.schedule["interval"] == 0
        if not due and not self.in_use.stale:
            return super().measure(closure, first)
        record = self.sampler.first(closure, self.trainable(), keep=due)
        refuse_unmeasured(self.name, self.in_use.current(), record)
        samples = record.passes[0] if due else {}
        with torch.no_grad(), self.full_precision():
            for unit in self.blocks if due else ():
                if unit.name in samples:
                    fresh = shown(samples[unit.name], **self.inverses.shows(unit))
                    old = self._shown.get(unit.name)
                    self._shown[unit.name] = fresh if old is None else old.joined(fresh)
        return record

    def _inputs_alone(self, closure: Closure) -> BatchRecord:
        """A batch of a warm start: no backward pass."""
        if self._looking is None:
            self._looking = ForwardBackward(self.model, self.name, output_gradients=False)
        record = self._looking.closure(closure, {})
        with torch.no_grad(), self.full_precision():
            for unit in self.in_use.current():
                if unit.name in record.inputs:
                    self._shown[unit.name] = shown(record.inputs[unit.name], second=True, output_gradients=False)
        return record

    def average(self, gradients: Named, examples: int) -> None:
        """h̄, ḡ and A's action on s_A, with weights and inverses as they are; inverses start where there are none. In a
        warm start A alone, its mean over the batches."""
        showing, self._shown = self._shown, {}
        if self.warming:
            if finite({name: one.second for name, one in showing.items() if one.second is not None}):
                self.inverses.absorb(showing)
            else:
                self.skipped += 1
            return
        self._examples_now = examples
        units = [unit for unit in self.blocks if unit.name in showing]
        weights = self._weights() if units else {}
        self._pending = self.sampler.take(), self.inverses.before(units, showing, weights, self._damping)

    def settle(self) -> None:
        """H_A = (A + λ_A I)⁻¹ of the warm start's A."""
        self._looking = None
        with torch.no_grad(), self.full_precision():
            self.inverses.warmed(self.blocks, self._damping)

    def _weights(self) -> Named:
        return {name: p.detach() for name, p in self.model.named_parameters()}

    def _damping(self, unit: PreconditionerBlock) -> float:
        damping: float = self.group_of(unit)["damping"]
        return damping

    # The step.

    def update(self, gradients: Named) -> Named:
        """p = H_G m H_A; m/λ for parameters of no block."""
        averaged = self.heavy_ball(self._doubled(gradients))
        if not self.averages_gradient:
            return self.direction(averaged)
        scaled: Named = {}
        for group, names, _ in self.by_group(averaged):
            share = 1 - group["momentum"]
            scaled.update(zip(names, torch._foreach_mul([averaged[name] for name in names], share), strict=True))
        return self.direction(scaled)

    def _doubled(self, gradients: Named) -> Named:
        """The gradient joined by that of the step before's second sample (Ren 2022, section 2.8.3)."""
        second, examples = self._second.take()
        if not second or second.keys() != gradients.keys() or not finite(second):
            return gradients
        share = examples / (examples + self._examples_now)
        return {name: torch.lerp(g, second[name], share) for name, g in gradients.items()}

    @torch.no_grad()
    def direction(self, gradients: Named) -> Named:
        """H_G g H_A for every layer with inverses, g/λ for all else.

        Raises:
            CurvlabError: a state was loaded, and the model, whose layers the inverses belong to, has not run since.
        """
        if self.inverses.states:
            self.in_use.require_found(self.name)
        found: Named = {}
        for unit in self.blocks:
            if unit.name in self.inverses.states and all(name in gradients for name in unit.parameters.values()):
                matrix = unit.assemble(gradients).to(self._dtype)
                found.update(unit.take_apart(self.inverses.product(unit, matrix), gradients))
        for group, names, _ in self.by_group({name: g for name, g in gradients.items() if name not in found}):
            found.update(
                zip(names, torch._foreach_mul([gradients[n] for n in names], 1 / group["damping"]), strict=True)
            )
        return {name: found[name].to(g.dtype) for name, g in gradients.items() if name in found}

    @torch.no_grad()
    def learn(self) -> None:
        """Run the step's batches again with the weights as they are now, and update the inverses (Ren 2022, Alg. 9,
        lines 13–22)."""
        (parts, before), self._pending = self._pending, ([], {})
        if not before:
            return
        after: dict[str, Shown] = {}
        doubling = self.schedule["double_gradient"]
        for part in parts:
            record = self.sampler.again(part, self.trainable() if doubling else {})
            samples = record.passes[0]
            with self.full_precision():
                for name in before.keys() & samples.keys():
                    fresh = shown(samples[name])
                    after[name] = after[name].joined(fresh) if name in after else fresh
            if doubling:
                self._second.add(record.gradients, record.examples)
        weights = self._weights()
        with self.full_precision():
            for unit in self.blocks:
                if unit.name in after:
                    self.inverses.learn(unit, before[unit.name], after[unit.name], weights)

    # What is known of it.

    def counters(self) -> dict[str, Any]:
        """What became of the pairs (s_G, y_G) so far; see `tallies`. For a log: it waits for the device."""
        return tallies(self.inverses.states)

    def coverage(self) -> dict[str, str]:
        """Parameter name -> this method's name, or that it follows the gradient; known after the first step."""
        inside = self.in_use.parameters()
        names = (self.names[id(p)] for p in self.parameters())
        return {name: self.name if name in inside else "heavy ball at lr/damping: in no block" for name in names}

    def saved_state(self) -> dict[str, Any]:
        """With A where it is averaged, the inverses and their pairs by layer, and the second sample's gradient."""
        return {
            **super().saved_state(),
            "recipe": asdict(self.recipe),
            "schedule": dict(self.schedule),
            "covered": sorted(self.in_use.parameters()),
            "averages": {name: dict(state) for name, state in self.averages.items()},
            "inverses": {name: dict(state) for name, state in self.inverses.states.items()},
            "second": {"gradient": dict(self._second.gradients), "examples": self._second.examples},
        }

    def restore_state(self, state_dict: Mapping[str, Any]) -> None:
        """As `Optimizer.restore_state`, with the inverses and the interval.

        Raises:
            CurvlabError: also where they are of another recipe (pair_damping, moment, pairs, ...).
        """
        saved = state_dict.get("recipe", {})
        for key, mine in asdict(self.recipe).items():
            if saved.get(key) != mine:
                raise CurvlabError(
                    f"the saved state of {self.name} has {key} {saved.get(key)!r}", f"this one has {mine!r}"
                )
        super().restore_state(state_dict)
        like = torch.empty((), dtype=self._dtype, device=self.parameters()[0].device)
        byname = dict(self.model.named_parameters())
        self.inverses.restore(moved(dict(state_dict["inverses"]), like), moved(dict(state_dict["averages"]), like))
        self._second = JointGradient()
        if second := {name: moved(g, byname[name]) for name, g in state_dict["second"]["gradient"].items()}:
            self._second.add(second, state_dict["second"]["examples"])
        self.schedule = dict(state_dict["schedule"])
        self.in_use.loaded(state_dict["covered"])
