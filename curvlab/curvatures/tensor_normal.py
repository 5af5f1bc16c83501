"""Tensor-normal training: F ≈ Ũ_1 ⊗ … ⊗ Ũ_k per parameter tensor, direction D ×_1 (Ũ_1 + εI)⁻¹ … (Ren 2022, Alg. 13–15,
eq. 4.10)."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from functools import reduce
from math import prod
from operator import or_
from typing import Any, ClassVar

import torch
from torch import Tensor

from curvlab.capture.batch_record import Samples
from curvlab.capture.sample import Sample
from curvlab.capture.survey import Survey
from curvlab.curvatures.blocks import PreconditionerBlock, Use, parameter_tensors, shown_tensors
from curvlab.curvatures.curvature import Count, Curvature, State
from curvlab.curvatures.kept_rows import add_rows_or_square, averaged, keys_of, operator_of, rows_or_square
from curvlab.curvatures.room import Kept, Room
from curvlab.layers.embedding import EmbeddingLayer
from curvlab.linalg.gram import finished, gram
from curvlab.operators.damp import per_factor
from curvlab.operators.operator import Dense, Kronecker, Operator
from curvlab.operators.power import powers
from curvlab.operators.scaled import scaled
from curvlab.operators.trace import trace
from curvlab.statistics.position_factors import Side, is_dense, positions, rows_of_mode, sides, square_of_mode
from curvlab.statistics.tensor_normal import (
    TensorStatistic,
    contraction_rows,
    contraction_sums,
    factor_divisors,
    gradient_sum,
    tensor_normal_factors,
)


class TensorNormalCurvature(Curvature):
    """Contractions G⁽ⁱ⁾ of every parameter tensor's gradient.

    Args:
        statistic: "batch" contracts the mean pseudo-gradient of the batch (Ren 2022, Alg. 15), "per-example" each
            example's.
        fisher_type: targets of the output gradients; "empirical" is TNT-EF.
        mc_samples: sampled targets per example.
        largest_mode: a tensor with a longer mode has no block: its factor would be that square.
        keep_rows: keep a contraction as rows while they are fewer than its columns, and as a sketch where the matrix
            does not fit its room either. Contractions then have an axis of one group first.
    """

    name = "tensor-normal"
    contents: ClassVar[str | None] = "tensor-normal factors"

    def __init__(
        self,
        statistic: TensorStatistic = "batch",
        fisher_type: str = "mc",
        mc_samples: int = 1,
        largest_mode: int = 8192,
        keep_rows: bool = False,
    ) -> None:
        self.statistic, self.largest_mode = statistic, largest_mode
        self.of_batches, self.keep_rows = statistic == "batch", keep_rows
        self.fisher_type, self.mc_samples = fisher_type, mc_samples

    def recipe(self) -> dict[str, str | float]:
        """Which tensors have factors is not part of what the factors are."""
        return {"statistic": self.statistic, "fisher_type": self.fisher_type, "mc_samples": self.mc_samples}

    def blocks(self, found: Survey | None, parameters: Mapping[str, Tensor]) -> list[PreconditionerBlock]:
        """One per parameter tensor of a layer; the gradients of its uses add up."""
        return [one for one in parameter_tensors(found, parameters) if max(one.shape) <= self.largest_mode]

    def profiled(self, found: Survey) -> list[PreconditionerBlock]:
        """One per tensor; experts and parts of a fused weight have their own."""
        layers = found.blocks.values()
        parameters = {n: block.layer.parameters[r] for block in layers for r, n in block.parameters.items()}
        return [one for one in shown_tensors(found, parameters) if max(one.shape) <= self.largest_mode]

    def output_gradients(self, block: PreconditionerBlock, samples: Samples, passed: int, averages: State) -> State:
        """Σ of the gradient (batch), or of the contractions (per-example, or a column of an exact expectation)."""
        parts = [(_seen_by(use, samples), use.role or "") for use in block.uses if use.block.name in samples]
        if self._of_the_mean:
            # Every pass has its own mean: contractions of a sum over passes would hold cross terms.
            return {f"gradient {passed}": _gradient(parts, block.shape)}
        if not self.keep_rows:
            return {str(mode): total for mode, total in enumerate(contraction_sums(parts, block.shape))}
        return kept_contractions(parts, block.shape, self.room)

    def add(self, held: State, fresh: State, own: Container[str]) -> None:
        """See `Curvature.add`."""
        if not self.keep_rows or any(key.startswith("gradient") for key in fresh):
            super().add(held, fresh, own)
            return
        for key in keys_of(fresh):
            add_rows_or_square(held, fresh, key, own, self.room)

    def average(self, block: PreconditionerBlock, sums: State, count: Count) -> State:
        """G⁽ⁱ⁾ of the batch."""
        if self._of_the_mean:
            means = [g.to(count.dtype or g.dtype) / count.examples for g in sums.values()]
            if self.keep_rows:
                return self._kept_of_means(block, means)
            passes = [contractions(g) for g in means]
            return {mode: torch.stack([one[mode] for one in passes]).sum(0) for mode in passes[0]} if passes else {}
        # E[D̄ D̄ᵀ] over independent targets is 1/N² Σ_n E[D_n D_nᵀ].
        size = count.examples**2 if self.statistic == "batch" else count.examples
        if not self.keep_rows:
            return {key: finished(total, size, count.dtype) for key, total in sums.items()}
        return reduce(or_, (averaged(sums, key, size, count.dtype) for key in keys_of(sums)), State())

    def _kept_of_means(self, block: PreconditionerBlock, means: Sequence[Tensor]) -> State:
        """Contractions of the passes' mean gradients, summed, with rows where they are few."""
        state: State = {}
        for gradient in means:
            for mode, rows in enumerate(mode_rows(gradient.reshape(block.shape))):
                fresh = rows_or_square(str(mode), rows[None], self.room)
                add_rows_or_square(state, fresh, str(mode), (), self.room)
        return reduce(or_, (averaged(state, key, 1, None) for key in keys_of(state)), State())

    @property
    def _of_the_mean(self) -> bool:
        return self.statistic == "batch" and self.fisher_type != "type-2"

    def factors(self, block: PreconditionerBlock, state: State) -> list[Tensor]:
        """Ũ_1 … Ũ_k of eq. 4.10."""
        return tensor_normal_factors([state[str(mode)] for mode in range(len(block.shape))], block.shape)

    def operator(self, block: PreconditionerBlock, state: State) -> Operator | None:
        """Ũ_1 ⊗ … ⊗ Ũ_k, each in the form it is kept in."""
        if not self.keep_rows:
            return Kronecker(tuple(Dense(u) for u in self.factors(block, state)))
        found = [operator_of(state, str(mode)) for mode in range(len(block.shape))]
        divisors = factor_divisors(torch.tensor(trace(found[0]), dtype=torch.float64), block.shape)
        scales = [1 / divisor if (divisor := one.item()) > 0 else 0.0 for one in divisors]
        return Kronecker(tuple(scaled(one, scale) for one, scale in zip(found, scales, strict=True)))

    def bytes(self, block: PreconditionerBlock) -> int:
        """One matrix per mode, or the most that stands for it."""
        return 8 * sum(d * d for d in block.shape)

    def kept(self, block: PreconditionerBlock, examples: int | None, passes: int, number: int) -> Sequence[Kept]:
        """One matrix per mode, or the rows that stand for it; of a batch's mean the gradient itself comes on top."""
        if not self.keep_rows:
            return super().kept(block, examples, passes, number)
        size, positions = prod(block.shape), sum(use.block.positions for use in block.uses)
        found = [Kept(8 * size, 0, 0)] if self._of_the_mean else []
        table = all(isinstance(use.block.layer, EmbeddingLayer) for use in block.uses)
        for mode, d in enumerate(block.shape):
            each = size // d if self._of_the_mean or len(block.shape) != 2 else min(positions, size // d)
            rows = None if examples is None else examples * each * passes
            if table and mode == 0 and examples is not None and not self._of_the_mean:
                found.append(self._on_tokens(d, min(d, examples * positions), rows or 0))
            else:
                found.append(self.room.kept(d, rows))
        return found

    def _on_tokens(self, width: int, seen: int, rows: int) -> Kept:
        """The first mode of a table, kept on the tokens that were seen."""
        if self.room.square(width):
            return self.room.kept(seen, rows)
        few = rows if rows <= self.room.rows(width) else 2 * self.room.sketch(width)
        return Kept(8 * few * seen, 0, 16 * min(few, seen) ** 2)

    def operators(
        self, blocks: Sequence[PreconditionerBlock], states: Sequence[State], settings: Sequence[Mapping[str, Any]]
    ) -> list[Operator | None]:
        """(Ũ_1 + εI)⁻¹ ⊗ … ⊗ (Ũ_k + εI)⁻¹."""
        damped = []
        for block, state, group in zip(blocks, states, settings, strict=True):
            plain = Kronecker(tuple(Dense(u) for u in self.factors(block, state)))
            damped.append(per_factor(group["damping"])(plain))
        return powers(damped, [-1.0] * len(damped))


def _seen_by(use: Use, samples: Samples) -> Sample:
    """The sample of a use; of a part of a parameter as that of a layer whose weight is the part."""
    sample = samples[use.block.name]
    return sample.of_part() if use.part else sample


def _gradient(parts: Sequence[tuple[Sample, str]], shape: tuple[int, ...]) -> Tensor:
    """Σ_n D_n over all uses of a parameter."""
    sums = [gradient_sum(sample, role).reshape(shape) for sample, role in parts]
    return sums[0] if len(sums) == 1 else torch.stack(sums).sum(0)


def contractions(gradient: Tensor) -> State:
    """mat_i(D) mat_i(D)ᴴ for every mode i."""
    return {str(mode): x.mT @ x.conj() if x.is_complex() else gram(x) for mode, x in enumerate(mode_rows(gradient))}


def mode_rows(gradient: Tensor) -> list[Tensor]:
    """mat_i(D)ᵀ for every mode i."""
    return [gradient.movedim(mode, -1).reshape(-1, d) for mode, d in enumerate(gradient.shape)]


def kept_contractions(parts: Sequence[tuple[Sample, str]], shape: tuple[int, ...], room: Room) -> State:
    """Σ_n mat_i(D_n) mat_i(D_n)ᵀ of every mode i, as rows where they are fewer than its columns."""
    rows = contraction_rows(parts, shape)
    if rows is not None:
        return reduce(or_, (rows_or_square(str(mode), one[None], room) for mode, one in enumerate(rows)))
    sample = parts[0][0]
    pair = sides(parts, shape)
    if pair is not None and not _is_small_table(pair, shape, room):
        counts = [sample.examples * min(positions(pair[0]), d) for d in reversed(shape)]
        few = [count < d or not room.square(d) for count, d in zip(counts, shape, strict=True)]
        if any(few) or not all(map(is_dense, pair)):
            modes = zip(pair, reversed(pair), few, strict=True)
            return reduce(
                or_,
                (
                    _kept_mode(str(mode), own, other, sample.dtype, room, shape[mode], by_rows)
                    for mode, (own, other, by_rows) in enumerate(modes)
                ),
            )
    return {str(mode): total[None] for mode, total in enumerate(contraction_sums(parts, shape))}


def _is_small_table(pair: tuple[Side, Side], shape: tuple[int, ...], room: Room) -> bool:
    """Whether it is a table smaller than the Gram matrix of its positions: one of relative positions has T² of them."""
    table = not all(map(is_dense, pair)) and all(map(room.square, shape))
    return table and positions(pair[0]) ** 2 > prod(shape)


def _kept_mode(key: str, own: Side, other: Side, dtype: torch.dtype, room: Room, width: int, by_rows: bool) -> State:
    if not by_rows and is_dense(own):
        return {key: square_of_mode(own, other, dtype)[None]}
    rows, columns = rows_of_mode(own, other, dtype)
    return rows_or_square(key, rows[None], room, columns, width)
