"""The preconditioned step: statistics every T1 steps, operators every T2, m ← μm + g, p = P m, W ← W − α(p + γW)."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn

from curvlab.capture.batch_record import BatchRecord, Samples
from curvlab.capture.closures import Closure
from curvlab.capture.forward_backward import ForwardBackward
from curvlab.curvatures.batch_sums import BatchSums
from curvlab.curvatures.blocks import PreconditionerBlock, refuse_unmeasured
from curvlab.curvatures.curvature import Curvature, State
from curvlab.errors import CurvlabError
from curvlab.likelihoods import Likelihood, likelihood
from curvlab.likelihoods.fisher import Fisher
from curvlab.operators.hermitian import embedded
from curvlab.operators.operator import Grouped, Operator
from curvlab.operators.power import reason
from curvlab.operators.product import product
from curvlab.optim.core import Named, Optimizer
from curvlab.optim.declared import Params
from curvlab.optim.last_good import Kept, LastGood
from curvlab.optim.operator_state import packed, unpacked
from curvlab.optim.saved_state import moved
from curvlab.optim.shared import SCHEDULE, Shared, with_defaults
from curvlab.optim.working_type import working_type


class Preconditioned(Optimizer):
    """An optimizer that preconditions with a curvature.

    Args:
        model: the network.
        curvature: the recipe.
        target: likelihood of the model's output; needed where pseudo-targets are drawn.
        lr: α.
        damping: λ or ε, as the recipe means it.
        shared: see `Shared`; a block takes the settings of its first parameter's group.

    Attributes:
        blocks: what operators act on; known after the first step.
        averages: block name -> its averaged statistics.
        operators: block name -> the inverse in use, the step it is of, and how often in a row a newer one failed.
        unmeasured: block name -> number of batches whose statistics were not finite and were left out.
    """

    warms: ClassVar[bool] = True
    keeps_factors: ClassVar[bool] = True
    swept: ClassVar[str | None] = "damping"
    scaled: bool = False
    """Whether the scale of the closure's loss is wanted, see `BatchRecord.scale`."""
    eager: ClassVar[bool] = True
    """Whether operators are renewed on each of the first T2 steps."""

    def __init__(
        self,
        model: nn.Module | Params,
        curvature: Curvature,
        target: str | Likelihood | None,
        lr: float,
        damping: float,
        **shared: Unpack[Shared],
    ) -> None:
        given = with_defaults(shared)
        defaults = {"lr": lr, "damping": damping, "momentum": given["momentum"], "weight_decay": given["weight_decay"]}
        self.schedule = {name: given[name] for name in SCHEDULE}
        super().__init__(model, defaults, given.get("groups"))
        if not curvature.of_gradient and curvature.fisher_type != "empirical" and target is None:
            raise CurvlabError(f"{self.name} draws pseudo-targets", "it must know from what", "give likelihood=")
        self.curvature = curvature
        self.likelihood = None if target is None else likelihood(target)
        self.recorder = ForwardBackward(self.model, self.name)
        self.blocks: list[PreconditionerBlock] = []
        self.operators: LastGood[Operator] = LastGood()
        self.unmeasured: dict[str, int] = {}
        self.measured = self.refreshed = 0
        self._warmed = 0
        """Examples that the running means of a warm start are of."""
        self._sums = BatchSums(curvature, [])
        self._warming = False
        self._generator: torch.Generator | None = None
        self._trainable: frozenset[str] = frozenset()
        self._covered: set[str] = set()
        self._dtype = working_type(self.parameters())

    @property
    def needs_closure(self) -> bool:  # type: ignore[override]
        """Whether the model must be recorded while it runs."""
        return not self.curvature.of_gradient

    @property
    def failures(self) -> dict[str, int]:
        """Block name -> how often in a row its newest inverse failed; blocks without a failure are left out."""
        return {name: kept.failures for name, kept in self.operators.blocks.items() if kept.failures}

    # What one batch shows.

    def evaluate(self, closure: Closure) -> tuple[Tensor, int, Named]:
        """Loss, examples and gradients of a batch; its statistics join the step's sums when they are due."""
        if not self.needs_closure:
            self._find_blocks()
            return super().evaluate(closure)
        due = self._warming or self.steps % self.schedule["statistics_interval"] == 0 or not self.averages
        if not due and not self._changed() and not self.scaled:
            return super().evaluate(closure)
        fisher = self._fisher() if due else Fisher(self.likelihood if self.scaled else None, "forward-only")
        observer = self if due else None
        record = self.recorder.closure(closure, self.trainable(), fisher, observer, scaled=self.scaled)
        self._find_blocks()
        if due:
            refuse_unmeasured(self.name, self.blocks, record)
        self.noted_loss(record)
        assert record.loss is not None
        return record.loss, record.examples, record.gradients

    def noted_loss(self, record: BatchRecord) -> None:
        """Hook for methods that use the batch's likelihood and the scale of its loss."""

    def inputs(self, samples: Samples) -> None:
        """As an observer of the batch: sums of the inputs."""
        self._find_blocks()
        self._sums.inputs(samples)

    def output_gradients(self, samples: Samples, passed: int) -> None:
        """As an observer of the batch: sums of the output gradients."""
        self._sums.output_gradients(samples, passed)

    def _fisher(self) -> Fisher:
        """Targets of the curvature's type, drawn on the model's device.

        The generator is seeded by the step (in a warm start by the batch), so that a resumed run draws what an
        uninterrupted one would; micro-batches of one step go on with it.
        """
        p = self.parameters()[0]
        if self._generator is None:
            self._generator = torch.Generator(p.device)
        if not self._sums.sums:
            where = f"{self.schedule['seed']} {'warm' if self._warming else self.steps} {self.measured * self._warming}"
            self._generator.manual_seed(int.from_bytes(hashlib.sha256(where.encode()).digest()[:7]))
        kind, samples = self.curvature.fisher_type, self.curvature.mc_samples
        return Fisher(self.likelihood, kind, samples, self._generator, self._dtype)

    def _changed(self) -> bool:
        """Whether blocks are to be found: after construction or a load, or since parameters were frozen or freed."""
        return self._trainable != {self.names[id(p)] for p in self.parameters() if p.requires_grad}

    def _find_blocks(self) -> None:
        if not self._changed():
            return
        trainable = self.trainable()
        blocks = self.curvature.blocks(self.recorder.found, trainable)
        self.blocks = [one for one in blocks if all(name in trainable for name in one.parameters.values())]
        self._trainable = frozenset(trainable)
        self._sums = BatchSums(self.curvature, self.blocks, self.averages)

    # Averages and operators.

    def prepare(self, gradients: Named, examples: int) -> None:
        """Blend the step's statistics into the averages; renew the operators when they are due."""
        if not self.needs_closure and self.steps % self.schedule["statistics_interval"] == 0:
            self._contract(gradients)
        if not self._sums.sums and self.operators.blocks:
            return
        self._absorb(examples)
        interval = self.schedule["inverse_interval"]
        early = self.eager and self.steps < interval
        if early or self.steps - self.refreshed >= interval or not self.operators.blocks:
            self.refresh()
        else:
            for one in self.blocks:
                renewed = self.curvature.renew(self.averages.get(one.name, {}), self.group_of(one))
                if renewed is not None and one.name in self.operators.blocks:
                    kept = self.operators.blocks[one.name]
                    self.operators.blocks[one.name] = Kept(renewed, kept.step, kept.failures)

    def forget(self) -> None:
        """The statistics of a batch whose gradient is not finite are not finite either."""
        self._sums = BatchSums(self.curvature, self.blocks, self.averages)

    def _contract(self, gradients: Named) -> None:
        self._find_blocks()  # also where gradients came by backward()
        for one in self.blocks:
            if all(name in gradients for name in one.parameters.values()):
                self._sums.sums[one.name] = {"gradient": self._widened(one.assemble(gradients))}

    def _absorb(self, examples: int) -> None:
        fresh = self._sums.averaged(examples)
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
        """Renew the operators of all blocks; a failed one keeps the last good, the fourth failure in a row is an error.

        Raises:
            NumericalError: names the block, the step and the condition of its factors.
        """
        known = [one for one in self.blocks if one.name in self.averages]
        states, settings = [self.averages[one.name] for one in known], [self.group_of(one) for one in known]
        made = self.curvature.operators(known, states, settings)
        self.refreshed = self.steps
        for one, state, operator in zip(known, states, made, strict=True):
            self.operators.update(one.name, self.steps, operator, lambda state=state: _worst(state))  # type: ignore[misc]

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
        """p = P m; parameters of no block follow m."""
        return self.direction(self.heavy_ball(gradients))

    @torch.no_grad()
    def direction(self, gradients: Named) -> Named:
        """P g for every block whose operator is there, g for all else.

        Raises:
            CurvlabError: a state was loaded, and the model, whose layers the operators belong to, has not run since.
        """
        if not self.needs_closure:
            self._find_blocks()
        elif self.operators.blocks and not self._trainable:
            raise CurvlabError(
                f"{self.name} has loaded a state and not seen the model run since",
                "layers are found then",
                "take a step",
            )
        directions = dict(gradients)
        for one in self.blocks:
            kept = self.operators.blocks.get(one.name)
            if kept is None or kept.value is None or any(name not in gradients for name in one.parameters.values()):
                continue
            preconditioned = product(kept.value, self._widened(one.assemble(gradients)))
            for name, part in one.take_apart(preconditioned, gradients).items():
                directions[name] = part.to(gradients[name].dtype)
        return directions

    def _widened(self, x: Tensor) -> Tensor:
        """x in the type of the operators, or in the complex one as wide."""
        return x.to(torch.promote_types(x.dtype, self._dtype))

    def _inside(self) -> set[str]:
        """Parameters of blocks; after a load, as the saved run found them."""
        return {name for one in self.blocks for name in one.parameters.values()} if self.blocks else self._covered

    def coverage(self) -> dict[str, str]:
        """Parameter name -> this method's name, or that it follows the heavy ball; known after the first step."""
        inside = self._inside()
        unreached = {
            name
            for one in self.blocks
            if self.averages and one.name not in self.averages
            for name in one.parameters.values()
        }
        treated = {}
        for name in (self.names[id(p)] for p in self.parameters()):
            if name in unreached:
                treated[name] = "heavy ball: no statistics of its block, which the model's first output does not reach"
            else:
                treated[name] = self.name if name in inside else "heavy ball: in no block of this method"
        return treated

    # State.

    def saved_state(self) -> dict[str, Any]:
        """With the averages, the operators in use, their age and their failures, by block name."""
        return {
            **super().saved_state(),
            "schedule": dict(self.schedule),
            "recipe": self.curvature.recipe(),
            "covered": sorted(self._inside()),
            "averages": {name: dict(state) for name, state in self.averages.items()},
            "operators": packed(self.operators),
            "unmeasured": dict(self.unmeasured),
            "measured": self.measured,
            "refreshed": self.refreshed,
        }

    def restore_state(self, state_dict: Mapping[str, Any]) -> None:
        """As `Optimizer.restore_state`, with averages, operators and the schedule of T1, T2 and β.

        Raises:
            CurvlabError: also where the averages are of another recipe (empirical, kfac_approx, statistic, ...).
        """
        saved = state_dict.get("recipe", {})
        for key, mine in self.curvature.recipe().items():
            if saved.get(key) != mine:
                raise CurvlabError(
                    f"the saved state of {self.name} has {key} {saved.get(key)!r}", f"this one has {mine!r}"
                )
        super().restore_state(state_dict)
        like = torch.empty((), dtype=self._dtype, device=self.parameters()[0].device)
        self.averages = moved(dict(state_dict["averages"]), like)
        self.operators = unpacked(state_dict["operators"], like)
        self.schedule, self.unmeasured = dict(state_dict["schedule"]), dict(state_dict["unmeasured"])
        self.measured, self.refreshed = state_dict["measured"], state_dict["refreshed"]
        self.blocks, self._trainable, self._covered = [], frozenset(), set(state_dict["covered"])


def _worst(state: State) -> str:
    """What is wrong with averages whose inverse failed, in words."""
    stacks = [value.reshape(-1, *value.shape[-2:]) for value in state.values() if value.ndim > 1]
    square = [stack for stack in stacks if stack.shape[-1] == stack.shape[-2]]
    reasons = [reason(Grouped(torch.stack([embedded(matrix) for matrix in stack]))) for stack in square]
    return "; ".join(reasons) or "its statistics are not positive definite"
