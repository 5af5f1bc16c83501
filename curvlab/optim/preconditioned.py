"""The preconditioned step: statistics every T1 steps, operators every T2, m ← μm + g, p = P m, W ← W − α(p + γW).

Pseudo-gradients come from a second backward through the same forward graph (grosse 5.8; ren Alg. 15, line 7).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, TypedDict, Unpack

import torch
from torch import Tensor, nn

from curvlab.capture.sample import Call, Sample
from curvlab.capture.survey import Survey, first_examples, survey, use_key
from curvlab.capture.tape import Inputs, Tape
from curvlab.curvatures.curvature import Batch, Curvature, State, Unit, blend
from curvlab.errors import CurvlabError, NumericalError
from curvlab.likelihoods import Likelihood, likelihood
from curvlab.operators.operator import Operator
from curvlab.operators.pack import pack, unpack
from curvlab.operators.product import product
from curvlab.optim.core import Closure, Named, Optimizer, all_finite, checked_loss
from curvlab.optim.hyperparameters import DECAY, INTERVAL, POSITIVE, RATE, Bound, check
from curvlab.statistics.collect import output_tensor

FAILURES = 4
"""So many failed inverses of a unit in a row are an error (docs/curvature.md)."""


class Shared(TypedDict, total=False):
    """Settings that every preconditioned optimizer takes by name, with these defaults.

    Attributes:
        momentum: μ = 0.9 of the heavy ball.
        weight_decay: γ = 0, decoupled.
        decay: β = 0.9 of the averages of statistics: x ← βx + (1 − β)x_new.
        averaging: "constant" β, or "growing": min(1 − 1/k, β) at the k-th update (grosse section 5).
        statistics_interval: T1 = 1 step between updates of the statistics.
        inverse_interval: T2 = 20 steps between renewals of the operators.
        seed: 0, of the pseudo-targets.
        groups: parameter groups with lr, damping, momentum or weight_decay of their own; None.
    """

    momentum: float
    weight_decay: float
    decay: float
    averaging: str
    statistics_interval: int
    inverse_interval: int
    seed: int
    groups: Iterable[Mapping[str, Any]] | None


_SCHEDULE: dict[str, Any] = {
    "decay": 0.9,
    "averaging": "constant",
    "statistics_interval": 1,
    "inverse_interval": 20,
    "seed": 0,
}


class Preconditioned(Optimizer):
    """An optimizer that preconditions with a curvature.

    Args:
        model: the network.
        curvature: the recipe.
        target: likelihood of the model's output; needed where pseudo-targets are drawn.
        lr: α.
        damping: λ or ε, as the recipe means it.
        shared: see `Shared`; a unit takes the settings of its first parameter's group.
    """

    bounds: ClassVar[Mapping[str, Bound]] = {
        "lr": RATE,
        "momentum": DECAY,
        "weight_decay": RATE,
        "damping": POSITIVE,
        "decay": DECAY,
        "averaging": Bound(choices=("constant", "growing")),
        "statistics_interval": INTERVAL,
        "inverse_interval": INTERVAL,
        "seed": Bound(whole=True),
    }

    def __init__(
        self,
        model: nn.Module,
        curvature: Curvature,
        target: str | Likelihood | None,
        lr: float,
        damping: float,
        **shared: Unpack[Shared],
    ) -> None:
        given: dict[str, Any] = {"momentum": 0.9, "weight_decay": 0.0, **_SCHEDULE, **shared}
        unknown = sorted(set(given) - {*Shared.__annotations__})
        if unknown:
            raise CurvlabError(f"{self.name} has no setting {unknown[0]!r}", "", f"there are {', '.join(given)}")
        defaults = {"lr": lr, "damping": damping, "momentum": given["momentum"], "weight_decay": given["weight_decay"]}
        self.schedule = {name: given[name] for name in _SCHEDULE}
        check(self.name, {**defaults, **self.schedule}, self.bounds)
        super().__init__(model, defaults, given.get("groups"))
        if curvature.source == "pseudo" and target is None:
            raise CurvlabError(f"{self.name} draws pseudo-targets", "it must know from what", "give likelihood=")
        self.curvature = curvature
        self.likelihood = None if target is None else likelihood(target)
        self.units: list[Unit] = []
        self.averages: dict[str, State] = {}
        self.inverses: dict[str, Operator] = {}
        self.failures: dict[str, int] = {}
        self.measured = 0
        self._found: Survey | None = None
        self._tape: Tape | None = None
        self._calls: dict[str, list[Call]] = {}
        self._sums: dict[str, State] = {}
        self._rows: dict[str, int] = {}
        self._collecting = self._warming = self._surveying = False
        self._generator = torch.Generator()

    @property
    def needs_closure(self) -> bool:  # type: ignore[override]
        """Whether the model must be watched while it runs."""
        return self.curvature.source != "gradient"

    # What one batch shows.

    def evaluate(self, closure: Closure) -> tuple[Tensor, int, Named]:
        """Loss, examples and gradients of a batch; its statistics join the step's sums when they are due."""
        due = self._warming or self.steps % self.schedule["statistics_interval"] == 0
        if not due or self.curvature.source == "gradient":
            return super().evaluate(closure)
        if not self._sums:
            # Seeded by the step, so that a resumed run draws what an uninterrupted one would.
            self._generator.manual_seed((self.schedule["seed"] * 1_000_003 + self.steps) % 2**63)
        self._calls = {}
        with self._recording():
            loss = checked_loss(self.name, closure())
        tape = self._tape
        if tape is None or tape.runs != 1:
            what = "did not run the model" if tape is None or not tape.runs else f"ran the model {tape.runs} times"
            raise CurvlabError(
                f"{self.name}: the closure {what}", "it must run it once", "call model(x) in the closure"
            )
        pseudo = self.curvature.source == "pseudo"
        self._collecting = not pseudo
        gradients = self.gradients_of(loss, retain_graph=pseudo)
        if pseudo:
            assert self.likelihood is not None
            output, self._collecting = output_tensor(tape.output), True
            with torch.no_grad():
                (seed,) = self.likelihood.seeds(output, None, "mc", 1, self._generator)
            tape.pull(output, seed)
        self._collecting = False
        self._measure(tape.examples)
        tape.release()
        return loss.detach(), tape.examples, gradients

    @contextmanager
    def _recording(self) -> Iterator[None]:
        if self._tape is not None:
            with self._tape.recording():
                yield
            return
        handle = self.model.register_forward_pre_hook(self._look, with_kwargs=True, prepend=True)
        try:
            yield
        finally:
            handle.remove()
            self._rest()

    def _rest(self) -> None:
        if self._tape is not None:
            self._tape.pause()

    def _look(self, _: nn.Module, args: Any, kwargs: Any) -> None:
        """At the first call of the model: find its blocks by a small forward of its own, then record the call."""
        if self._tape is not None or self._surveying:
            return
        self._surveying = True  # the survey's own forward comes through here too
        try:
            lone = len(args) == 1 and isinstance(args[0], Tensor) and not kwargs
            inputs: Inputs = args[0] if lone else args or kwargs
            found = survey(self.model, first_examples(inputs, 2))
        finally:
            self._surveying = False
        trainable = {self.names[id(p)]: p for p in self.parameters() if p.requires_grad}
        units = self.curvature.units(found, trainable)
        self.units = [unit for unit in units if all(name in trainable for name in unit.parameters.values())]
        self._found = found
        self._tape = Tape(self.model, found.modules, self._on_call, self._on_signal, lambda name, why: None, found.axes)
        self._tape.join(args, kwargs)

    def _on_call(self, use: str, call: Call) -> None:
        assert self._found is not None
        name = self._found.block_of.get(use_key(use, call.layer))
        if name is not None:
            self._calls.setdefault(name, []).append(call)

    def _on_signal(self, use: str, call: Call, gradient: Tensor) -> None:
        if self._collecting:
            call.check()
            # The closure's loss is a mean over the batch; ℓ_n is one example's.
            examples = self._tape.examples if self._tape is not None and self.curvature.source == "data" else 1
            call.g = gradient * examples

    @torch.no_grad()
    def _measure(self, examples: int) -> None:
        samples: dict[str, Sample] = {}
        dtype = next(self.model.parameters()).dtype
        for unit in self.units:
            assert unit.block is not None
            name = unit.block.name
            calls = [call for call in self._calls.get(name, ()) if call.g is not None]
            if not calls:
                continue
            # One sample per block, so that its units share what is made from it.
            sample = samples.setdefault(name, Sample(calls, examples, dtype))
            sums = self.curvature.measure(unit, sample, self.averages.get(unit.name, {}))
            held = self._sums.setdefault(unit.name, {})
            for key, value in sums.items():
                held[key] = held[key] + value if key in held else value
            self._rows[unit.name] = self._rows.get(unit.name, 0) + examples * sample.positions
        self._calls = {}

    # Averages and operators.

    def prepare(self, gradients: Named, finite: Tensor, examples: int) -> None:
        """Blend the step's statistics into the averages; renew the operators when they are due."""
        if self.curvature.source == "gradient" and self.steps % self.schedule["statistics_interval"] == 0:
            self._contract(gradients)
        moved = bool(self._sums)
        self._absorb(finite, examples)
        if self.averages and (self.steps % self.schedule["inverse_interval"] == 0 or not self.inverses):
            self.refresh()
        elif moved:
            for unit in self.units:
                renewed = self.curvature.renew(self.averages.get(unit.name, {}), self._group_of(unit))
                if renewed is not None and unit.name in self.inverses:
                    self.inverses[unit.name] = renewed

    def _contract(self, gradients: Named) -> None:
        if not self.units:
            trainable = {self.names[id(p)]: p for p in self.parameters() if p.requires_grad}
            self.units = self.curvature.units(None, trainable)
        for unit in self.units:
            if all(name in gradients for name in unit.parameters.values()):
                self._sums[unit.name] = {"gradient": unit.assemble(gradients)}

    def _absorb(self, finite: Tensor, examples: int) -> None:
        if not self._sums:
            return
        weight = 1 - 1 / (self.measured + 1)
        if not self._warming:
            constant = self.schedule["averaging"] == "constant"
            weight = self.schedule["decay"] if constant else min(weight, self.schedule["decay"])
        for unit in self.units:
            if unit.name not in self._sums:
                continue
            batch = Batch(max(1, examples), max(1, self._rows.get(unit.name, 1)))
            fresh = self.curvature.average(unit, self._sums[unit.name], batch)
            ok = finite & all_finite(fresh)
            state = self.averages.setdefault(unit.name, {})
            for key, value in fresh.items():
                if key in state:
                    state[key] = torch.where(ok, blend(state[key], value, weight), state[key])
                else:
                    state[key] = torch.where(ok, value, torch.zeros_like(value))
        self.measured += 1
        self._sums, self._rows = {}, {}

    @torch.no_grad()
    def refresh(self) -> None:
        """Renew the operators of all units; a failed one keeps the last good, the fourth failure in a row is an error.

        Raises:
            NumericalError: names the unit.
        """
        known = [unit for unit in self.units if unit.name in self.averages]
        settings = [self._group_of(unit) for unit in known]
        made = self.curvature.operators(known, [self.averages[unit.name] for unit in known], settings)
        for unit, operator in zip(known, made, strict=True):
            if operator is not None:
                self.inverses[unit.name], self.failures[unit.name] = operator, 0
                continue
            self.failures[unit.name] = self.failures.get(unit.name, 0) + 1
            if self.failures[unit.name] >= FAILURES:
                raise NumericalError(
                    f"{self.name}: the inverse for {unit.name!r} failed {FAILURES} times, last at step {self.steps}",
                    "its statistics are not finite or not positive definite",
                    "raise the damping or lower lr",
                )

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
                if self.curvature.source == "gradient":
                    self._contract(gradients)
                with torch.no_grad():
                    self._absorb(all_finite(gradients), examples)
        finally:
            self._warming = False
        if self.averages:
            self.refresh()
        return time.perf_counter() - start

    # Directions.

    def update(self, gradients: Named, finite: Tensor) -> Named:
        """p = P m; parameters of no unit follow m."""
        return self.direction(self.heavy_ball(gradients, finite))

    @torch.no_grad()
    def direction(self, gradients: Named) -> Named:
        """P g for every unit whose operator is there, g for all else."""
        directions = dict(gradients)
        for unit in self.units:
            operator = self.inverses.get(unit.name)
            if operator is not None and all(name in gradients for name in unit.parameters.values()):
                preconditioned = product(operator, unit.assemble(gradients))
                directions.update(unit.take_apart(preconditioned, gradients))
        return directions

    def coverage(self) -> dict[str, str]:
        """Parameter name -> this method's name, or that it follows the heavy ball; known after the first step."""
        inside = {name for unit in self.units for name in unit.parameters.values()}
        names = (self.names[id(p)] for p in self.parameters())
        return {name: self.name if name in inside else "heavy ball: in no block of this method" for name in names}

    def _group_of(self, unit: Unit) -> Mapping[str, Any]:
        first = next(iter(unit.parameters.values()))
        return next(g for g in self.param_groups for p in g["params"] if self.names[id(p)] == first)

    # State.

    def state_dict(self) -> dict[str, Any]:
        """With the averages, the operators in use and their failures, by unit name."""
        return {
            **super().state_dict(),
            "averages": {name: dict(state) for name, state in self.averages.items()},
            "operators": {name: pack(operator) for name, operator in self.inverses.items()},
            "failures": dict(self.failures),
            "measured": self.measured,
        }

    @torch.no_grad()
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """As `Optimizer.load_state_dict`; averages and operators move to the model's device."""
        super().load_state_dict(state_dict)
        device = next(self.model.parameters()).device

        def moved(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value.to(device).clone()
            if isinstance(value, dict):
                return {key: moved(one) for key, one in value.items()}
            return [moved(one) for one in value] if isinstance(value, list) else value

        self.averages = moved(dict(state_dict["averages"]))
        self.inverses = {name: unpack(moved(packed)) for name, packed in state_dict["operators"].items()}
        self.failures, self.measured = dict(state_dict["failures"]), state_dict["measured"]
