"""Tensor-normal training: F ≈ Ũ_1 ⊗ … ⊗ Ũ_k per parameter tensor, direction D ×_1 (Ũ_1 + εI)⁻¹ … (Ren 2022, Alg. 13–15,
eq. 4.10)."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from functools import reduce
from operator import or_
from typing import Any, ClassVar

import torch
from torch import Tensor

from curvlab.capture.batch_record import Samples
from curvlab.capture.sample import Sample
from curvlab.capture.survey import Survey
from curvlab.curvatures.blocks import PreconditionerBlock, Use, parameter_tensors, shown_tensors
from curvlab.curvatures.curvature import Count, Curvature, State
from curvlab.curvatures.kept_rows import add_rows_or_square, key_of, rows_of, rows_or_square
from curvlab.linalg.gram import finished, gram
from curvlab.operators.damp import per_factor
from curvlab.operators.operator import Dense, Kronecker, LowRank, Operator
from curvlab.operators.power import powers
from curvlab.operators.scaled import scaled
from curvlab.operators.trace import trace
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
        keep_rows: keep the rows of a contraction while they are fewer than its columns, where they are known.
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
        self.of_batches = statistic == "batch"
        self.keep_rows = keep_rows and not self.of_batches  # rows of several batches have no mean
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
        rows = contraction_rows(parts, block.shape) if self.keep_rows else None
        if rows is None:
            return {str(mode): total for mode, total in enumerate(contraction_sums(parts, block.shape))}
        return reduce(or_, (rows_or_square(str(mode), one) for mode, one in enumerate(rows)))

    def add(self, held: State, fresh: State, own: Container[str]) -> None:
        """See `Curvature.add`."""
        if self._of_the_mean:
            super().add(held, fresh, own)
            return
        for key in dict.fromkeys(map(key_of, fresh)):
            add_rows_or_square(held, fresh, key, own)

    def average(self, block: PreconditionerBlock, sums: State, count: Count) -> State:
        """G⁽ⁱ⁾ of the batch."""
        if self._of_the_mean:
            passes = [contractions(g.to(count.dtype or g.dtype) / count.examples) for g in sums.values()]
            return {mode: torch.stack([one[mode] for one in passes]).sum(0) for mode in passes[0]} if passes else {}
        # E[D̄ D̄ᵀ] over independent targets is 1/N² Σ_n E[D_n D_nᵀ].
        size = count.examples**2 if self.statistic == "batch" else count.examples
        return {
            key: finished(total, size, count.dtype) if key == key_of(key) else total / size**0.5
            for key, total in sums.items()
        }

    @property
    def _of_the_mean(self) -> bool:
        return self.statistic == "batch" and self.fisher_type != "type-2"

    def factors(self, block: PreconditionerBlock, state: State) -> list[Tensor]:
        """Ũ_1 … Ũ_k of eq. 4.10."""
        return tensor_normal_factors([state[str(mode)] for mode in range(len(block.shape))], block.shape)

    def operator(self, block: PreconditionerBlock, state: State) -> Operator | None:
        """Ũ_1 ⊗ … ⊗ Ũ_k, each in the form it is kept in."""
        kept = [rows_of(str(mode)) for mode in range(len(block.shape))]
        if not any(key in state for key in kept):
            return Kronecker(tuple(Dense(u) for u in self.factors(block, state)))
        found = [LowRank(state[k], 1.0) if k in state else Dense(state[str(i)]) for i, k in enumerate(kept)]
        divisors = factor_divisors(torch.tensor(trace(found[0]), dtype=torch.float64), block.shape)
        scales = [1 / divisor if (divisor := one.item()) > 0 else 0.0 for one in divisors]
        return Kronecker(tuple(scaled(one, scale) for one, scale in zip(found, scales, strict=True)))

    def bytes(self, block: PreconditionerBlock) -> int:
        """One matrix per mode."""
        return 8 * sum(d * d for d in block.shape)

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
    rows = [gradient.movedim(mode, -1).reshape(-1, d) for mode, d in enumerate(gradient.shape)]
    return {str(mode): x.mT @ x.conj() if x.is_complex() else gram(x) for mode, x in enumerate(rows)}
