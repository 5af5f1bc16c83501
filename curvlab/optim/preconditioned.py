"""The preconditioned step: statistics every T1 steps, operators every T2, m ← μm + g, p = P m, W ← W − α(p + γW)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, ClassVar, Unpack

import torch
from torch import nn

from curvlab.capture.batch_record import BatchRecord
from curvlab.capture.closures import Closure
from curvlab.capture.forward_backward import ForwardBackward
from curvlab.curvatures.blocks import PreconditionerBlock, refuse_unmeasured
from curvlab.curvatures.curvature import Curvature
from curvlab.errors import CurvlabError
from curvlab.likelihoods import Likelihood, likelihood
from curvlab.likelihoods.fisher import Fisher
from curvlab.optim.block_operators import BlockOperators
from curvlab.optim.blocks_in_use import BlocksInUse
from curvlab.optim.core import Named, Optimizer
from curvlab.optim.declared import Params
from curvlab.optim.moving_statistics import MovingStatistics
from curvlab.optim.pseudo_targets import PseudoTargets
from curvlab.optim.saved_state import moved
from curvlab.optim.shared import SCHEDULE, Shared, with_defaults
from curvlab.optim.working_type import working_type


class Preconditioned(Optimizer):
    """An optimizer that preconditions with a curvature: `statistics` are averaged, `operators` are made of them.

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
        statistics: the sums of a step, and how they join the averages.
        operators: block name -> the inverse in use, the step it is of, and how often in a row a newer one failed.
    """

    warms: ClassVar[bool] = True
    keeps_factors: ClassVar[bool] = True
    swept: ClassVar[str | None] = "damping"
    recorder: ForwardBackward
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
        p, dtype = self.parameters()[0], working_type(self.parameters())
        self.recorder = ForwardBackward(self.model, self.name)
        self.in_use = BlocksInUse(self.trainable, lambda names: curvature.blocks(self.recorder.found, names))
        self.targets = PseudoTargets(curvature, self.likelihood, p.device, dtype)
        self.statistics = MovingStatistics(curvature, self.in_use, dtype)
        self.averages = self.statistics.averages
        self.operators = BlockOperators(curvature, dtype, self.group_of)

    @property
    def needs_closure(self) -> bool:  # type: ignore[override]
        """Whether the model must be recorded while it runs."""
        return not self.curvature.of_gradient

    @property
    def blocks(self) -> list[PreconditionerBlock]:
        """What operators act on."""
        return self.in_use.blocks

    @property
    def failures(self) -> dict[str, int]:
        """Block name -> how often in a row its newest inverse failed; blocks without a failure are left out."""
        return {name: kept.failures for name, kept in self.operators.blocks.items() if kept.failures}

    @property
    def unmeasured(self) -> dict[str, int]:
        """Block name -> number of batches whose statistics were not finite and were left out."""
        return self.statistics.unmeasured

    # A step.

    @property
    def due(self) -> bool:
        """Whether this step's statistics are averaged: every T1 steps, where there are none yet, in a warm start."""
        return self.warming or not self.averages or self.steps % self.schedule["statistics_interval"] == 0

    def measure(self, closure: Closure, first: bool) -> BatchRecord:
        """Loss and gradients of a batch; where they are due, its statistics join the step's sums."""
        if first:
            self.statistics.begin()
        due = self.due
        if not self.needs_closure or not (due or self.in_use.stale or self.scaled):
            return super().measure(closure, first)
        fisher = self._fisher(first) if due else Fisher(self.likelihood if self.scaled else None, "forward-only")
        observer = self.statistics if due else None
        record = self.recorder.closure(closure, self.trainable(), fisher, observer, scaled=self.scaled)
        blocks = self.in_use.current()
        if due:
            refuse_unmeasured(self.name, blocks, record)
        return record

    def _fisher(self, first: bool) -> Fisher:
        """Pseudo-targets that follow from the seed and the step, in a warm start from the seed and the batch."""
        when = f"warm {self.statistics.measured}" if self.warming else f"{self.steps} 0"
        return self.targets.fisher(f"{self.schedule['seed']} {when}" if first else None)

    def average(self, gradients: Named, examples: int) -> None:
        """Statistics → averages every T1 steps, averages → operators every T2."""
        if not self.needs_closure and self.due:
            self.statistics.gradients(gradients)
        fresh = self.statistics.fresh
        self.statistics.average(examples, None if self.warming else self.schedule)
        if not self.warming and (fresh or not self.operators.blocks):
            self._renew_operators()

    def _renew_operators(self) -> None:
        interval = self.schedule["inverse_interval"]
        early = self.eager and self.steps < interval
        if early or self.steps - self.operators.refreshed >= interval or not self.operators.blocks:
            self.refresh()
        else:
            self.operators.follow(self.blocks, self.averages)

    @torch.no_grad()
    def refresh(self) -> None:
        """Make the operators of all blocks; a failed one keeps the last good, the fourth failure in a row is an error.

        Raises:
            NumericalError: names the block, the step and the condition of its factors.
        """
        self.operators.refresh(self.blocks, self.averages, self.steps)

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
            self.in_use.current()
        elif self.operators.blocks:
            self.in_use.require_found(self.name)
        directions = dict(gradients)
        for block in self.blocks:
            found = self.operators.product(block, gradients)
            directions |= {n: directions[n] + d for n, d in found.items()} if block.is_part else found
        return directions

    # Beside the steps.

    def settle(self) -> None:
        """The operators of the averages."""
        if self.averages:
            with self.full_precision():
                self.refresh()

    @contextmanager
    def damped(self, value: float) -> Iterator[None]:
        """As `Optimizer.damped`, with operators made with the other damping."""
        if not self.averages:
            with super().damped(value):
                yield
            return
        operators, averages = self.operators, dict(self.averages)
        self.operators = BlockOperators(self.curvature, operators.dtype, operators.settings_of)
        # Recipes may keep notes in the averages (EKFAC its basis): these are copies.
        self.statistics.replace(deepcopy(averages))
        try:
            with super().damped(value):
                self.refresh()
                yield
        finally:
            self.operators = operators
            self.statistics.replace(averages)

    def coverage(self) -> dict[str, str]:
        """Parameter name -> this method's name, or that it follows the heavy ball; known after the first step."""
        inside = self.in_use.parameters()
        treated = {
            name: self.name if name in inside else "heavy ball: in no block of this method"
            for name in super().coverage()
        }
        for one in self.blocks:
            if self.averages and one.name not in self.averages:
                reason = "heavy ball: no statistics of its block, which the model's first output does not reach"
                treated |= dict.fromkeys(one.parameters.values(), reason)
        return treated

    # State.

    def saved_state(self) -> dict[str, Any]:
        """With the averages, the operators in use, their age and their failures, by block name."""
        return {
            **super().saved_state(),
            "schedule": dict(self.schedule),
            "recipe": self.curvature.recipe(),
            "covered": sorted(self.in_use.parameters()),
            "averages": {name: dict(state) for name, state in self.averages.items()},
            "operators": self.operators.saved(),
            "unmeasured": dict(self.unmeasured),
            "measured": self.statistics.measured,
            "refreshed": self.operators.refreshed,
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
        self.schedule = dict(state_dict["schedule"])
        self.in_use.loaded(state_dict["covered"])
        like = torch.empty((), dtype=self.operators.dtype, device=self.parameters()[0].device)
        self.statistics.replace(moved(dict(state_dict["averages"]), like))
        self.statistics.measured, self.statistics.unmeasured = state_dict["measured"], dict(state_dict["unmeasured"])
        self.operators.restore(state_dict["operators"], like)
        self.operators.refreshed = state_dict["refreshed"]
