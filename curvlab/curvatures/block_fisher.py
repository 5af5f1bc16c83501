"""Block Fisher: (F_l + λI)⁻¹ per layer with the exact block F_l = 1/N Σ vec(DW_n) vec(DW_n)ᵀ (Ren 2022, section 4.3.4).

Two routes to the same operator: the d × d block itself, or the rows vec(DW_n) of the batches in the average with their
weights, F = Σ_s w_s/N_s rows_sᵀ rows_s, inverted by Sherman, Morrison and Woodbury (Ren 2022, eq. 5.6–5.7).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from curvlab.capture.batch_record import Samples
from curvlab.capture.survey import Survey
from curvlab.curvatures.blocks import PreconditionerBlock, tied_matrices, whole_block
from curvlab.curvatures.curvature import Count, Curvature, State
from curvlab.curvatures.per_example import block_gradients
from curvlab.curvatures.registry import register
from curvlab.document.numbers import size
from curvlab.errors import MemoryBudgetError
from curvlab.linalg.gram import finished, upper_gram
from curvlab.operators.cholesky_inverse import cholesky_inverse_operator
from curvlab.operators.damped_inverse import damped_inverses
from curvlab.operators.operator import Dense, LowRank, Operator

DROPPED = 1e-4
"""The oldest batches are let go once all of them together have less than this weight in the average.

F then lacks that share of their blocks, and is never too large. A batch whose gradients are ten times as long as
today's (a hundredfold block) still makes 1 % of F by then, no more than the sampling error of F itself: under β = 0.9
that is √((1 − β)/(1 + β)/N), 0.7 % for batches of N = 1000. Ten times less would keep a third more batches.
"""

WEIGHTS, ROWS = "weights", "rows {}"
"""State of the second route: the weights w_s `[b]` of its batches, oldest first, and the rows `[n, d]` of each."""


class BlockFisherCurvature(Curvature):
    """Exact blocks, dense while all of them fit the memory budget; beyond it those that gain most from it are rows.

    The route of a block is chosen when the first batch shows how many rows there will be; a saved state keeps its own.

    Args:
        fisher_type: targets of the output gradients.
        mc_samples: sampled targets per example.
        max_memory: bytes that all blocks may take; the error says how many they would.
        batches: how many batches are in the average at a time, see `batches_kept`.
    """

    def __init__(
        self, fisher_type: str = "mc", mc_samples: int = 1, max_memory: int = 2 * 2**30, batches: int = 1
    ) -> None:
        self.fisher_type, self.mc_samples = fisher_type, mc_samples
        self.max_memory, self.batches = max_memory, batches
        self._costs: dict[str, Cost] = {}
        self._by_rows: dict[str, bool] = {}
        self._kept: dict[str, int] = {}
        self._parts = itertools.count()

    def recipe(self) -> dict[str, str | float]:
        """The memory allowed changes how averages are kept, not what they are of."""
        return {"fisher_type": self.fisher_type, "mc_samples": self.mc_samples}

    def blocks(self, found: Survey | None, parameters: Mapping[str, Tensor]) -> list[PreconditionerBlock]:
        """One per layer that is not frozen; layers that share parameters have one for all uses of them."""
        made = [one for one in tied_matrices(found) if all(name in parameters for name in one.parameters.values())]
        for one in made:
            block = one.uses[0].block
            number = next(iter(block.layer.parameters.values())).element_size()
            self._costs[one.name] = Cost(block.size, number)
        return made

    def output_gradients(self, block: PreconditionerBlock, samples: Samples, passed: int, averages: State) -> State:
        """Σ vec vecᵀ, or the rows: every micro-batch under a name of its own, since sums of one name are added up.

        Raises:
            MemoryBudgetError: the blocks fit on neither route, or more batches are kept than was planned for.
        """
        gradients = block_gradients(block, samples)
        assert gradients is not None
        rows = gradients.flatten(1)
        if not self._route(block.name, averages, len(rows) * self.mc_samples):
            return {"fisher": upper_gram(rows)}
        self._kept[block.name] = len(rows) * self.mc_samples + sum(len(held) for held in _rows(averages))
        self._check(self._by_rows, len(rows))
        return {ROWS.format(next(self._parts)): rows}

    def average(self, block: PreconditionerBlock, sums: State, count: Count) -> State:
        """F; or the rows, and the share of the batch that each of its parts is."""
        if "fisher" in sums:
            return {"fisher": finished(sums["fisher"], count.examples, count.dtype)}
        seen = sum(map(len, sums.values()))
        if seen != count.examples:  # several passes; or a micro-batch that never reached the block: zeros in the mean
            sums = {key: rows * (seen / count.examples) ** 0.5 for key, rows in sums.items()}
        return {WEIGHTS: torch.stack([rows.new_full((), len(rows) / seen) for rows in sums.values()]), **sums}

    def merge(self, state: State, fresh: State, weight: float) -> State:
        """F ← βF + (1 − β)F_new: of rows the weights alone change, and the new rows come after the old."""
        if WEIGHTS not in fresh:
            return super().merge(state, fresh, weight)
        if not state:
            return _numbered(fresh[WEIGHTS], _rows(fresh))
        weights = torch.cat([state[WEIGHTS] * weight, fresh[WEIGHTS] * (1 - weight)])
        return _numbered(weights, [*_rows(state), *_rows(fresh)])

    def operator(self, block: PreconditionerBlock, state: State) -> Operator | None:
        """F."""
        return fisher(state)

    def operators(
        self, blocks: Sequence[PreconditionerBlock], states: Sequence[State], settings: Sequence[Mapping[str, Any]]
    ) -> list[Operator | None]:
        """(F + λI)⁻¹; batches that hardly count any more leave the states."""
        drop_oldest([state for state in states if WEIGHTS in state])
        return [_inverse(state, group["damping"]) for state, group in zip(states, settings, strict=True)]

    def _route(self, name: str, state: State, examples: int) -> bool:
        """Whether a block is kept as rows."""
        if state:
            self._by_rows[name] = WEIGHTS in state
        elif name not in self._by_rows:
            planned = self._plan(examples)
            self._check(planned, examples)
            self._by_rows = {**planned, **self._by_rows}
        return self._by_rows[name]

    def _plan(self, examples: int) -> dict[str, bool]:
        """All dense; while that is too much, the block with most to gain goes over to rows."""
        costs, rows = self._costs, examples * self.batches
        gains = {name: cost.dense - cost.rows(rows) for name, cost in costs.items()}
        planned, excess = dict.fromkeys(costs, False), sum(cost.dense for cost in costs.values()) - self.max_memory
        for name in sorted(gains, key=gains.__getitem__, reverse=True):
            if excess > 0 and gains[name] > 0:
                planned[name], excess = True, excess - gains[name]
        return planned

    def _check(self, by_rows: Mapping[str, bool], examples: int) -> None:
        """Raise if the routes take more than the budget, with the rows that are kept or else will be."""
        costs = {name: self._costs[name] for name in by_rows}
        kept = {name: self._kept.get(name, examples * self.batches) for name in costs}
        taken = sum(cost.rows(kept[name]) if by_rows[name] else cost.dense for name, cost in costs.items())
        if taken <= self.max_memory:
            return
        dense = sum(cost.dense for cost in costs.values())
        rows = sum(cost.rows(kept[name]) for name, cost in costs.items())
        raise MemoryBudgetError(
            f"the exact Fisher blocks of this model take {size(dense)} as matrices and {size(rows)} as the gradients "
            f"of {max(kept.values()):,} examples",
            f"the budget is {size(self.max_memory)}",
            "raise max_memory, lower the batch size, decay or inverse_interval, or use kfac",
        )


@register(
    "block-fisher",
    source="Ren 2022, section 4.3.4",
    help="spectra of the exact Fisher block of every layer, a matrix with the layer's number of parameters as its side",
)
class FisherBlocks(BlockFisherCurvature):
    """Exact blocks for display: every layer's, dense, with the gradients of all uses of its parameters."""

    def profiled(self, found: Survey) -> list[PreconditionerBlock]:
        """Every layer, with the uses of its parameters by others."""
        return [whole_block(found, block) for block in found.blocks.values()]

    def output_gradients(self, block: PreconditionerBlock, samples: Samples, passed: int, averages: State) -> State:
        """Σ vec vecᵀ of the layers that the pass has reached themselves."""
        gradients = block_gradients(block, samples) if block.name in samples else None
        return {} if gradients is None else {"fisher": upper_gram(gradients.flatten(1))}


@dataclass(frozen=True)
class Cost:
    """The bytes that a block of `size` parameters takes; `number` is the size of one number."""

    size: int
    number: int

    @property
    def dense(self) -> int:
        """The average, the inverse, and the batch's own while it is blended: 3d²."""
        return 3 * self.size**2 * self.number

    def rows(self, rows: int) -> int:
        """The average's r rows, the inverse's, and those of the next one while it is made; its inner r × r matrix,
        factor and inverse: 3rd + 3r²."""
        return 3 * rows * (self.size + rows) * self.number


def batches_kept(decay: float, between: int) -> int:
    """⌈log DROPPED / log β⌉, after which β^k is less, and the batches `between` two renewals of the operators, which
    is when old ones are let go."""
    return (math.ceil(math.log(DROPPED) / math.log(decay)) if decay > 0 else 1) + between


def drop_oldest(states: Sequence[State]) -> None:
    """Let go of the oldest batches while all that were let go would now weigh less than `DROPPED`; the device is asked
    once."""
    if not states:
        return
    # Weights add up to one with those of the batches that have left.
    counts = [(1 - state[WEIGHTS].flip(0).cumsum(0).flip(0)[1:] < DROPPED).sum() for state in states]
    for state, dropped in zip(states, torch.stack(counts).tolist(), strict=True):
        if dropped:
            kept = _numbered(state[WEIGHTS][dropped:].clone(), _rows(state)[dropped:])
            state.clear()
            state.update(kept)


def _inverse(state: State, damping: float) -> Operator | None:
    """(F + λI)⁻¹; of a matrix its Cholesky factor, since inverting a whole layer costs three times as much."""
    if "fisher" not in state:
        return damped_inverses([fisher(state)], [{"damping": damping}])[0]
    damped = state["fisher"].clone()
    damped.diagonal().add_(damping)
    return cholesky_inverse_operator(damped)


def fisher(state: State) -> Dense | LowRank:
    """F: the matrix, or the rows of all batches times √(w_s/n_s)."""
    if "fisher" in state:
        return Dense(state["fisher"])
    parts = _rows(state)
    roots = [(w / len(rows)).sqrt().expand(len(rows)) for w, rows in zip(state[WEIGHTS], parts, strict=True)]
    return LowRank(torch.cat(parts).mul_(torch.cat(roots)[:, None]), 1.0)


def _rows(state: State) -> list[Tensor]:
    """The rows of each batch, oldest first."""
    return [value for key, value in state.items() if key != WEIGHTS]


def _numbered(weights: Tensor, parts: Sequence[Tensor]) -> State:
    return {WEIGHTS: weights, **{ROWS.format(i): rows for i, rows in enumerate(parts)}}
