"""MovingStatistics: x ← βx + (1 − β)x_new, the averages of a curvature's statistics over the steps of an optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from curvlab.capture.batch_record import Samples
from curvlab.curvatures.batch_sums import BatchSums
from curvlab.curvatures.curvature import Curvature, State
from curvlab.errors import CurvlabError
from curvlab.optim.blocks_in_use import BlocksInUse
from curvlab.optim.grouped_parameters import Named
from curvlab.optim.working_type import widened


class MovingStatistics:
    """An observer of batches: adds up the sums of a step's batches, which then join the averages.

    Args:
        curvature: the recipe.
        in_use: the blocks.
        dtype: of the statistics that are made of gradients.

    Attributes:
        averages: block name -> averages: one dictionary for good, so that all who read it see the same.
        measured: number of times that sums have joined the averages.
        unmeasured: block name -> number of those times that its sums were not finite and were left out.
    """

    def __init__(self, curvature: Curvature, in_use: BlocksInUse, dtype: torch.dtype) -> None:
        self.curvature, self.in_use, self.dtype = curvature, in_use, dtype
        self.averages: dict[str, State] = {}
        self.measured = 0
        self.unmeasured: dict[str, int] = {}
        self._warmed = 0
        """Examples that the running means of a warm start are of."""
        self._sums = BatchSums(curvature, [])

    # The sums of a step.

    @property
    def fresh(self) -> bool:
        """Whether there are sums."""
        return bool(self._sums.sums)

    def begin(self) -> None:
        """A new step: there are no sums yet."""
        self._sums = BatchSums(self.curvature, self.in_use.blocks, self.averages)

    def inputs(self, samples: Samples) -> None:
        """See `Observer.inputs`."""
        if self.in_use.current() is not self._sums.blocks:  # the batch that runs is the first one that shows layers
            if self.fresh:
                raise CurvlabError(
                    "a parameter was frozen or freed between two batches of one step",
                    "their statistics are of other blocks",
                    "take the step first",
                )
            self.begin()
        self._sums.inputs(samples)

    def output_gradients(self, samples: Samples, passed: int) -> None:
        """See `Observer.output_gradients`."""
        self._sums.output_gradients(samples, passed)

    def gradients(self, gradients: Named) -> None:
        """The sums of a curvature of the mean gradient: each block's own gradient."""
        blocks = self.in_use.current()
        self.begin()
        for one in blocks:
            if all(name in gradients for name in one.parameters.values()):
                self._sums.sums[one.name] = {"gradient": widened(one.assemble(gradients), self.dtype)}

    # The averages.

    def average(self, examples: int, schedule: Mapping[str, Any] | None) -> None:
        """The sums, if there are any, join the averages; there are none afterwards.

        Args:
            examples: N of the step.
            schedule: "decay", β, and "averaging": constant, or growing up to β. None: the averages are running means
                over examples, in a warm start.
        """
        fresh = self._sums.averaged(examples)
        if not fresh:
            return
        past = self._share_of_examples(examples) if schedule is None else self._decay(schedule)
        if schedule is not None:
            self._warmed = 0  # the next warm start goes on from averages of training
        sums = [torch.stack([value.sum() for value in state.values()]).sum() for state in fresh.values()]
        for (name, state), good in zip(fresh.items(), torch.stack(sums).isfinite().tolist(), strict=True):
            if good:
                self.averages[name] = self.curvature.merge(self.averages.get(name, {}), state, past)
            else:
                self.unmeasured[name] = self.unmeasured.get(name, 0) + 1
        self.measured += 1

    def replace(self, averages: Mapping[str, State]) -> None:
        """Go on from these averages."""
        averages = dict(averages)
        self.averages.clear()
        self.averages.update(averages)

    def _decay(self, schedule: Mapping[str, Any]) -> float:
        decay: float = schedule["decay"]
        return decay if schedule["averaging"] == "constant" else min(1 - 1 / (self.measured + 1), decay)

    def _share_of_examples(self, examples: int) -> float:
        """The past's share of all examples so far: a last batch of fewer counts for less."""
        before = self._warmed or self.measured * examples  # averages of before count as batches like this one
        self._warmed = before + max(1, examples)
        return before / self._warmed
