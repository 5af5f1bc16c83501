"""The preconditioned step: statistics every T1 steps, operators every T2, m ← μm + g, p = P m, W ← W − α(p + γW)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn

from curvlab.curvatures.curvature import Batch, Curvature, State, Unit
from curvlab.errors import CurvlabError
from curvlab.likelihoods import Likelihood, likelihood
from curvlab.operators.operator import Grouped, Operator
from curvlab.operators.pack import pack, unpack
from curvlab.operators.power import reason
from curvlab.operators.product import product
from curvlab.optim.core import Closure, Named, Optimizer, finite
from curvlab.optim.hyperparameters import Bound, check
from curvlab.optim.shared import BOUNDS, SCHEDULE, Shared, completed
from curvlab.optim.watch import Seen, Watch
from curvlab.solvers.last_good import Kept, LastGood


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
        self.units: list[Unit] = []
        self.averages: dict[str, State] = {}
        self.operators: LastGood[Operator] = LastGood()
        self.unmeasured: dict[str, int] = {}
        self.measured = self.refreshed = 0
        self._sums: dict[str, State] = {}
        self._rows: dict[str, int] = {}
        self._warming = False
        self._generator: torch.Generator | None = None

    @property
    def needs_closure(self) -> bool:  # type: ignore[override]
        """Whether the model must be watched while it runs."""
        return self.curvature.source != "gradient"

    @property
    def failures(self) -> dict[str, int]:
        """Unit name -> how often in a row its newest inverse failed; units without a failure are left out."""
        return {name: kept.failures for name, kept in self.operators.blocks.items() if kept.failures}

    # What one batch shows.

    def evaluate(self, closure: Closure) -> tuple[Tensor, int, Named]:
        """Loss, examples and gradients of a batch; its statistics join the step's sums when they are due."""
        due = self._warming or self.steps % self.schedule["statistics_interval"] == 0
        if not due or not self.needs_closure:
            return super().evaluate(closure)
        seed = self._pseudo_residual if self.curvature.source == "pseudo" else None
        seen = self.watch.run(closure, self.gradients_of, seed)
        if not self.units:
            self.units = self._trainable_units()
        with torch.no_grad(), self.full_precision():
            self._measure(seen)
        return seen.loss, seen.examples, seen.gradients

    def _pseudo_residual(self, output: Tensor) -> Tensor:
        """∂ℓ/∂z at targets drawn from the model's own distribution."""
        assert self.likelihood is not None
        if self._generator is None:
            self._generator = torch.Generator(output.device)
        if not self._sums:
            # Seeded by the step, so that a resumed run draws what an uninterrupted one would.
            self._generator.manual_seed((self.schedule["seed"] * 1_000_003 + self.steps) % 2**63)
        with self.full_precision():
            return self.likelihood.drawn_residual(output.detach(), self._generator)

    def _trainable_units(self) -> list[Unit]:
        trainable = {self.names[id(p)]: p for p in self.parameters() if p.requires_grad}
        units = self.curvature.units(self.watch.found, trainable)
        return [unit for unit in units if all(name in trainable for name in unit.parameters.values())]

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
        if not self.units:
            self.units = self._trainable_units()
        for unit in self.units:
            if all(name in gradients for name in unit.parameters.values()):
                self._sums[unit.name] = {"gradient": unit.assemble(gradients)}

    def _absorb(self, examples: int) -> None:
        fresh: dict[str, State] = {}
        for unit in self.units:
            if unit.name in self._sums:
                batch = Batch(max(1, examples), max(1, self._rows.get(unit.name, 1)))
                fresh[unit.name] = self.curvature.average(unit, self._sums[unit.name], batch)
        self.forget()
        if not fresh:
            return
        weight = self._weight_of_the_past()
        sums = [torch.stack([value.sum() for value in state.values()]).sum() for state in fresh.values()]
        for (name, state), good in zip(fresh.items(), torch.stack(sums).isfinite().tolist(), strict=True):
            if good:
                self.averages[name] = self.curvature.merge(self.averages.get(name, {}), state, weight)
            else:
                self.unmeasured[name] = self.unmeasured.get(name, 0) + 1
        self.measured += 1

    def _weight_of_the_past(self) -> float:
        growing = 1 - 1 / (self.measured + 1)
        if self._warming:
            return growing
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

    def warm_start(self, closures: Iterable[Closure]) -> float:
        """Statistics averaged over one pass of batches (closures as for `step`); the weights do not move.

        Returns:
            Seconds it took.
        """
        start, self._warming = time.perf_counter(), True
        try:
            for closure in closures:
                with torch.enable_grad():
                    _, examples, gradients = self.evaluate(closure)
                with torch.no_grad(), self.full_precision():
                    if not finite(gradients):
                        self.forget()
                        continue
                    if not self.needs_closure:
                        self._contract(gradients)
                    self._absorb(examples)
        finally:
            self._warming = False
        if self.averages:
            with self.full_precision():
                self.refresh()
        return time.perf_counter() - start

    # Directions.

    def update(self, gradients: Named) -> Named:
        """p = P m; parameters of no unit follow m."""
        return self.direction(self.heavy_ball(gradients))

    @torch.no_grad()
    def direction(self, gradients: Named) -> Named:
        """P g for every unit whose operator is there, g for all else."""
        directions = dict(gradients)
        for unit in self.units:
            kept = self.operators.blocks.get(unit.name)
            if kept is None or kept.value is None or any(name not in gradients for name in unit.parameters.values()):
                continue
            preconditioned = product(kept.value, unit.assemble(gradients))
            directions.update(unit.take_apart(preconditioned, gradients))
        return directions

    def coverage(self) -> dict[str, str]:
        """Parameter name -> this method's name, or that it follows the heavy ball; known after the first step."""
        inside = {name for unit in self.units for name in unit.parameters.values()}
        names = (self.names[id(p)] for p in self.parameters())
        return {name: self.name if name in inside else "heavy ball: in no block of this method" for name in names}

    def group_of(self, unit: Unit) -> Mapping[str, Any]:
        """The parameter group of the unit's first parameter."""
        first = next(iter(unit.parameters.values()))
        return next(g for g in self.param_groups for p in g["params"] if self.names[id(p)] == first)

    # State.

    def state_dict(self) -> dict[str, Any]:
        """With the averages, the operators in use, their age and their failures, by unit name."""
        operators = {
            name: {
                "value": None if kept.value is None else pack(kept.value),
                "step": kept.step,
                "failures": kept.failures,
            }
            for name, kept in self.operators.blocks.items()
        }
        return {
            **super().state_dict(),
            "averages": {name: dict(state) for name, state in self.averages.items()},
            "operators": operators,
            "unmeasured": dict(self.unmeasured),
            "measured": self.measured,
            "refreshed": self.refreshed,
        }

    @torch.no_grad()
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """As `Optimizer.load_state_dict`; averages and operators move to the model's device."""
        super().load_state_dict(state_dict)
        device = self.parameters()[0].device
        self.averages = _moved(dict(state_dict["averages"]), device)
        for name, kept in _moved(dict(state_dict["operators"]), device).items():
            value = None if kept["value"] is None else unpack(kept["value"])
            self.operators.blocks[name] = Kept(value, kept["step"], kept["failures"])
        self.unmeasured = dict(state_dict["unmeasured"])
        self.measured, self.refreshed = state_dict["measured"], state_dict["refreshed"]


def _worst(state: State) -> str:
    """What is wrong with averages whose inverse failed, in words."""
    stacks = [value.reshape(-1, *value.shape[-2:]) for value in state.values() if value.ndim > 1]
    square = [stack for stack in stacks if stack.shape[-1] == stack.shape[-2]]
    reasons = [reason(Grouped(stack)) for stack in square]
    return "; ".join(reasons) or "its statistics are not positive definite"


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device).clone()
    if isinstance(value, dict):
        return {key: _moved(one, device) for key, one in value.items()}
    return [_moved(one, device) for one in value] if isinstance(value, list) else value
