"""Tensor-normal training: F ≈ Ũ_1 ⊗ … ⊗ Ũ_k per parameter tensor, direction D ×_1 (Ũ_1 + εI)⁻¹ … (ren Alg. 13–15, eq.
4.10)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from curvlab.capture.sample import Sample
from curvlab.capture.survey import Survey
from curvlab.curvatures.curvature import Batch, Curvature, PreconditionerBlock, Source, State
from curvlab.linalg.gram import gram, mirrored
from curvlab.operators.damp import per_factor
from curvlab.operators.operator import Dense, Kronecker, Operator
from curvlab.operators.power import powers
from curvlab.statistics.tensor_normal import TensorNormal, TensorStatistic, gradient_sum, tensor_normal_factors


class TensorNormalCurvature(Curvature):
    """Contractions G⁽ⁱ⁾ of every parameter tensor's gradient.

    Args:
        statistic: "batch" contracts the mean pseudo-gradient of the batch (ren Alg. 15), "per-example" each example's.
        source: "pseudo", or "data" for TNT-EF.
        largest_mode: a tensor with a longer mode is no unit: its factor would be that square.
    """

    def __init__(
        self, statistic: TensorStatistic = "batch", source: Source = "pseudo", largest_mode: int = 8192
    ) -> None:
        self.statistic, self.source, self.largest_mode = statistic, source, largest_mode

    def recipe(self) -> dict[str, str | float]:
        """Which tensors have factors is not part of what the factors are."""
        return {"statistic": self.statistic, "source": self.source}

    def units(self, found: Survey | None, parameters: Mapping[str, Tensor]) -> list[PreconditionerBlock]:
        """One per parameter tensor that one layer owns."""
        return [unit for unit in tensor_units(found, parameters) if max(unit.shape) <= self.largest_mode]

    def measure(self, unit: PreconditionerBlock, sample: Sample, state: State) -> State:
        """Σ of the gradient (batch), or of the contractions (per-example)."""
        assert unit.role is not None
        if self.statistic == "batch":
            return {"gradient": gradient_sum(sample, unit.role).reshape(unit.shape)}
        running = TensorNormal(unit.shape, "per-example")
        running.update([(sample, unit.role)], exact=False)
        return {str(mode): one.total for mode, one in enumerate(running.sums) if one.total is not None}

    def average(self, unit: PreconditionerBlock, sums: State, batch: Batch) -> State:
        """G⁽ⁱ⁾ of the batch."""
        if self.statistic == "batch":
            return contractions(sums["gradient"].div_(batch.examples))
        return {mode: mirrored(total / batch.examples) for mode, total in sums.items()}

    def operators(
        self, units: Sequence[PreconditionerBlock], states: Sequence[State], settings: Sequence[Mapping[str, Any]]
    ) -> list[Operator | None]:
        """(Ũ_1 + εI)⁻¹ ⊗ … ⊗ (Ũ_k + εI)⁻¹."""
        damped = []
        for unit, state, group in zip(units, states, settings, strict=True):
            factors = tensor_normal_factors([state[str(mode)] for mode in range(len(unit.shape))], unit.shape)
            damped.append(per_factor(group["damping"])(Kronecker(tuple(Dense(u) for u in factors))))
        return powers(damped, [-1.0] * len(damped))


def tensor_units(found: Survey | None, parameters: Mapping[str, Tensor]) -> list[PreconditionerBlock]:
    """One unit per trainable parameter that exactly one block owns, with that block's modes."""
    owners: dict[str, list[PreconditionerBlock]] = {}
    for block in found.blocks.values() if found is not None else ():
        for role, parameter in block.parameters.items():
            unit = PreconditionerBlock(parameter, block, role, {role: parameter}, block.layer.modes(role))
            owners.setdefault(parameter, []).append(unit)
    return [owners[name][0] for name in parameters if len(owners.get(name, ())) == 1]


def contractions(gradient: Tensor) -> State:
    """mat_i(D) mat_i(D)ᵀ for every mode i."""
    return {str(mode): gram(gradient.movedim(mode, -1).reshape(-1, d)) for mode, d in enumerate(gradient.shape)}
