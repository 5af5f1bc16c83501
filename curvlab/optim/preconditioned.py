"""The preconditioned step: statistics every T1 steps, operators every T2, m ← μm + g, p = P m, W ← W − α(p + γW)."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn

from curvlab.curvatures.curvature import Batch, Curvature, PreconditionerBlock, State
from curvlab.errors import CurvlabError
from curvlab.likelihoods import Likelihood, likelihood
from curvlab.operators.operator import Grouped, Operator
from curvlab.operators.power import reason
from curvlab.operators.product import product
from curvlab.optim.closures import Closure
from curvlab.optim.core import Named, Optimizer
from curvlab.optim.hyperparameters import Bound, check
from curvlab.optim.last_good import Kept, LastGood
from curvlab.optim.operator_state import packed, unpacked
from curvlab.optim.saved_state import moved
from curvlab.optim.shared import BOUNDS, SCHEDULE, Shared, completed
from curvlab.optim.watch import Seen, Watch


class Preconditioned(Optimizer):
    """An optimizer that preconditions with a curvature.

    Args:
        model: the network.
        curvature: the recipe.
        target: likelihood of the model's output; needed where pseudo-targets are drawn.
        lr: α.
        damping: λ or ε, as the recipe means it.
        shared: see `Shared`; a unit takes the settings of its first parameter's group.

    Attributes:
        units: what operators act on; known after the first step.
        averages: unit name -> its averaged statistics.
        operators: unit name -> the inverse in use, the step it is of, and how often in a row a newer one failed.
        unmeasured: unit name -> number of batches whose statistics were not finite and were left out.
    """

    bounds: ClassVar[Mapping[str, Bound]] = BOUNDS
    warms: ClassVar[bool] = True
    eager: ClassVar[bool] = True
    """Whether operators are renewed on each of the first T2 steps."""

    def __init__(
        self,
        model: nn.Module,
        curvature: Curvature,
        target: str | Likelihood | None,
        lr: float,
        damping: float,
        **shared: Unpack[Shared],
    ) -> None:
        given = completed(self.name, shared)
        defaults = {"lr": lr, "damping": damping, "momentum": given["momentum"], "weight_decay": given["weight_decay"]}
        self.schedule = {name: given[name] for name in SCHEDULE}
        check(self.name, {**defaults, **self.schedule}, self.bounds)
        super().__init__(model, defaults, given.get("groups"))
        if curvature.source == "pseudo" and target is None:
            raise CurvlabError(f"{self.name} draws pseudo-targets", "it must know from what", "give likelihood=")
        self.curvature = curvature
        self.likelihood = None if target is None else likelihood(target)
        self.watch = Watch(model, self.name)
        self.units: list[PreconditionerBlock] = []
        self.operators: LastGood[Operator] = LastGood()
        self.unmeasured: dict[str, int] = {}
        self.measured = self.refreshed = 0
        self._warmed = 0
        """Examples that the running means of a warm start are of."""
        self._sums: dict[str, State] = {}
        self._rows: dict[str, int] = {}
        self._warming = False
        self._generator: torch.Generator | None = None
        self._trainable: frozenset[str] = frozenset()
        self._covered: set[str] = set()
        self._dtype = torch.promote_types(self.parameters()[0].dtype, torch.float32)

    @property
    def needs_closure(self) -> bool:  # type: ignore[override]
        """Whether the model must be watched while it runs."""
        return self.curvature.source != "gradient"

    @property
    def failures(self) -> dict[str, int]:
        """Block name -> how often in a row its newest inverse failed; units without a failure are left out."""
        return {name: kept.failures for name, kept in self.operators.blocks.items() if kept.failures}

    # What one batch shows.

    def evaluate(self, closure: Closure) -> tuple[Tensor, int, Named]:
        """Loss, examples and gradients of a batch; its statistics join the step's sums when they are due."""
        if not self.needs_closure:
            self._find_units()
            return super().evaluate(closure)
        due = self._warming or self.steps % self.schedule["statistics_interval"] == 0 or not self.averages
        if not due and not self._changed():
            return super().evaluate(closure)
        pseudo = due and self.curvature.source == "pseudo"
        seen = self.watch.run(closure, self.gradients_of, self._pseudo_residual if pseudo else None)
        self._find_units()
        if due:
            with torch.no_grad(), self.full_precision():
                self._measure(seen)
        return seen.loss, seen.examples, seen.gradients

    def _changed(self) -> bool:
        """Whether units are to be found: after construction or a load, or since parameters were frozen or freed."""
        return self._trainable != {self.names[id(p)] for p in self.parameters() if p.requires_grad}

    def _find_units(self) -> None:
        if not self._changed():
            return
        trainable = {self.names[id(p)]: p for p in self.parameters() if p.requires_grad}
        units = self.curvature.units(self.watch.found, trainable)
        self.units = [unit for unit in units if all(name in trainable for name in unit.parameters.values())]
        self._trainable = frozenset(trainable)

    def _pseudo_residual(self, output: Tensor) -> Tensor:
        """∂ℓ/∂z at targets drawn from the model's own distribution."""
        assert self.likelihood is not None
        if self._generator is None:
            self._generator = torch.Generator(output.device)
        if not self._sums:
            # By the step (in a warm start by the batch), so that a resumed run draws what an uninterrupted one would.
            where = f"{self.schedule['seed']} {'warm' if self._warming else self.steps} {self.measured * self._warming}"
            self._generator.manual_seed(int.from_bytes(hashlib.sha256(where.encode()).digest()[:7]))
        with self.full_precision():
            return self.likelihood.drawn_residual(output.detach(), self._generator)

    def _measure(self, seen: Seen) -> None:
        for unit in self.units:
            # One sample per block, so that its units share what is made from it.
            sample = None if unit.block is None else seen.samples.get(unit.block.name)
            if sample is None:
                continue
            held = self._sums.setdefault(unit.name, {})
            for key, value in self.curvature.measure(unit, sample, self.averages.get(unit.name, {})).items():
                held[key] = held[key].add_(value) if key in held else value
            self._rows[unit.name] = self._rows.get(unit.name, 0) + seen.examples * sample.positions

    # Averages and operators.

    def prepare(self, gradients: Named, examples: int) -> None:
        """Blend the step's statistics into the averages; renew the operators when they are due."""
        if not self.needs_closure and self.steps % self.schedule["statistics_interval"] == 0:
            self._contract(gradients)
        if not self._sums and self.operators.blocks:
            return
        self._absorb(examples)
        interval = self.schedule["inverse_interval"]
        early = self.eager and self.steps < interval
        if early or self.steps - self.refreshed >= interval or not self.operators.blocks:
            self.refresh()
        else:
            for unit in self.units:
                renewed = self.curvature.renew(self.averages.get(unit.name, {}), self.group_of(unit))
                if renewed is not None and unit.name in self.operators.blocks:
                    kept = self.operators.blocks[unit.name]
                    self.operators.blocks[unit.name] = Kept(renewed, kept.step, kept.failures)

    def forget(self) -> None:
        """The statistics of a batch whose gradient is not finite are not finite either."""
        self._sums, self._rows = {}, {}

    def _contract(self, gradients: Named) -> None:
        self._find_units()  # also where gradients came by backward()
        for unit in self.units:
            if all(name in gradients for name in unit.parameters.values()):
                self._sums[unit.name] = {"gradient": unit.assemble(gradients).to(self._dtype)}

    def _absorb(self, examples: int) -> None:
        fresh: dict[str, State] = {}
        for unit in self.units:
            if unit.name in self._sums:
                batch = Batch(max(1, examples), max(1, self._rows.get(unit.name, 1)))
                fresh[unit.name] = self.curvature.average(unit, self._sums[unit.name], batch)
        self.forget()
        if not fresh:
            return
        weight = self._weight_of_the_past(examples)
        sums = [torch.stack([value.sum() for value in state.values()]).sum() for state in fresh.values()]
        for (name, state), good in zip(fresh.items(), torch.stack(sums).isfinite().tolist(), strict=True):
            if good:
                self.averages[name] = self.curvature.merge(self.averages.get(name, {}), state, weight)
            else:
                self.unmeasured[name] = self.unmeasured.get(name, 0) + 1
        self.measured += 1

    def _weight_of_the_past(self, examples: int) -> float:
        if self._warming:  # means over examples: a last batch of fewer counts for less
            before = self._warmed or self.measured * examples
            self._warmed = before + max(1, examples)
            return before / self._warmed
        growing = 1 - 1 / (self.measured + 1)
        decay: float = self.schedule["decay"]
        return decay if self.schedule["averaging"] == "constant" else min(growing, decay)

    @torch.no_grad()
    def refresh(self) -> None:
        """Renew the operators of all units; a failed one keeps the last good, the fourth failure in a row is an error.

        Raises:
            NumericalError: names the unit, the step and the condition of its factors.
        """
        known = [unit for unit in self.units if unit.name in self.averages]
        states, settings = [self.averages[unit.name] for unit in known], [self.group_of(unit) for unit in known]
        made = self.curvature.operators(known, states, settings)
        self.refreshed = self.steps
        for unit, state, operator in zip(known, states, made, strict=True):
            self.operators.update(unit.name, self.steps, operator, lambda state=state: _worst(state))  # type: ignore[misc]

    def warm_start(self, batches: Iterable[Any], loss: Callable[..., Tensor] | None = None) -> float:
        """See `Optimizer.warm_start`: statistics averaged over one pass, and the operators made of them."""
        seconds = super().warm_start(batches, loss)
        start = time.perf_counter()
        if self.averages:
            with self.full_precision():
                self.refresh()
        return seconds + time.perf_counter() - start

    def warm(self, closure: Closure) -> None:
        """One batch of a warm start: the averages are running means while it lasts."""
        self._warming = True
        try:
            super().warm(closure)
        finally:
            self._warming = False

    def absorb(self, gradients: Named, examples: int) -> None:
        """See `Optimizer.absorb`."""
        if not self.needs_closure:
            self._contract(gradients)
        self._absorb(examples)

    # Directions.

    def update(self, gradients: Named) -> Named:
        """p = P m; parameters of no unit follow m."""
        return self.direction(self.heavy_ball(gradients))

    @torch.no_grad()
    def direction(self, gradients: Named) -> Named:
        """P g for every unit whose operator is there, g for all else.

        Raises:
            CurvlabError: a state was loaded, and the model, whose layers the operators belong to, has not run since.
        """
        if not self.needs_closure:
            self._find_units()
        elif self.operators.blocks and not self._trainable:
            raise CurvlabError(
                f"{self.name} has loaded a state and not seen the model run since",
                "layers are found then",
                "take a step",
            )
        directions = dict(gradients)
        for unit in self.units:
            kept = self.operators.blocks.get(unit.name)
            if kept is None or kept.value is None or any(name not in gradients for name in unit.parameters.values()):
                continue
            preconditioned = product(kept.value, unit.assemble(gradients).to(self._dtype))
            for name, part in unit.take_apart(preconditioned, gradients).items():
                directions[name] = part.to(gradients[name].dtype)
        return directions

    def coverage(self) -> dict[str, str]:
        """Parameter name -> this method's name, or that it follows the heavy ball; known after the first step."""
        inside = {name for unit in self.units for name in unit.parameters.values()} if self.units else self._covered
        names = (self.names[id(p)] for p in self.parameters())
        return {name: self.name if name in inside else "heavy ball: in no block of this method" for name in names}

    # State.

    def state_dict(self) -> dict[str, Any]:
        """With the averages, the operators in use, their age and their failures, by unit name."""
        return {
            **super().state_dict(),
            "schedule": dict(self.schedule),
            "recipe": self.curvature.recipe(),
            "covered": sorted(name for unit in self.units for name in unit.parameters.values()),
            "averages": {name: dict(state) for name, state in self.averages.items()},
            "operators": packed(self.operators),
            "unmeasured": dict(self.unmeasured),
            "measured": self.measured,
            "refreshed": self.refreshed,
        }

    @torch.no_grad()
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """As `Optimizer.load_state_dict`, with averages, operators and the schedule of T1, T2 and β.

        Raises:
            CurvlabError: also where the averages are of another recipe (empirical, kfac_approx, statistic, ...).
        """
        saved = state_dict.get("recipe", {})
        for key, mine in self.curvature.recipe().items():
            if saved.get(key) != mine:
                raise CurvlabError(
                    f"the saved state of {self.name} has {key} {saved.get(key)!r}", f"this one has {mine!r}"
                )
        super().load_state_dict(state_dict)
        like = self.parameters()[0]
        self.averages = moved(dict(state_dict["averages"]), like)
        self.operators = unpacked(state_dict["operators"], like)
        self.schedule, self.unmeasured = dict(state_dict["schedule"]), dict(state_dict["unmeasured"])
        self.measured, self.refreshed = state_dict["measured"], state_dict["refreshed"]
        self.units, self._trainable, self._covered = [], frozenset(), set(state_dict["covered"])


def _worst(state: State) -> str:
    """What is wrong with averages whose inverse failed, in words."""
    stacks = [value.reshape(-1, *value.shape[-2:]) for value in state.values() if value.ndim > 1]
    square = [stack for stack in stacks if stack.shape[-1] == stack.shape[-2]]
    reasons = [reason(Grouped(stack)) for stack in square]
    return "; ".join(reasons) or "its statistics are not positive definite"
