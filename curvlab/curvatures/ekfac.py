"""EKFAC: K-FAC's eigenbasis with its own eigenvalues, S = E[(Q_Gᵀ DW_n Q_A)²], kept up to date between refreshes (Ren
2022, section 1.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from curvlab.capture.batch_record import Samples
from curvlab.curvatures.blocks import PreconditionerBlock
from curvlab.curvatures.curvature import Count, State
from curvlab.curvatures.kfac import KfacCurvature, kronecker
from curvlab.curvatures.per_example import block_gradients
from curvlab.curvatures.rotated_squares import rotated_squares
from curvlab.linalg.flushed import flushed
from curvlab.linalg.grouped_product import grouped_product
from curvlab.operators.damped_inverse import damped_inverses
from curvlab.operators.eigenbasis import Eigenbasis, eigenbases
from curvlab.operators.operator import Operator


class EkfacCurvature(KfacCurvature):
    """F ≈ (Q_G ⊗ Q_A) diag(S) (Q_G ⊗ Q_A)ᵀ.

    S starts as the factors' own eigenvalues; then the second moments of the rotated per-example gradients are averaged
    in the basis. A new basis R takes over what the old one, Q, knew: diag(Rᵀ Q diag(S) Qᵀ R) = (R_GᵀQ_G)² S (Q_AᵀR_A)².
    """

    holds_inputs: ClassVar[bool] = True

    def output_gradients(self, block: PreconditionerBlock, samples: Samples, passed: int, averages: State) -> State:
        """K-FAC's sums, and Σ (Q_Gᵀ DW_n Q_A)² in the current basis."""
        sums = super().output_gradients(block, samples, passed, averages)
        if "basis_input" in averages:
            bases = averages["basis_gradient"], averages["basis_input"]
            if len(block.uses) == 1:
                sums["scales"] = rotated_squares(samples[block.uses[0].block.name], *bases)
            elif (gradients := block_gradients(block, samples)) is not None:
                sums["scales"] = (bases[0].mT @ gradients @ bases[1]).square_().sum(0)
        return sums

    def average(self, block: PreconditionerBlock, sums: State, count: Count) -> State:
        """K-FAC's averages, and S over examples."""
        averages = super().average(block, sums, count)
        if "scales" in sums:
            averages["scales"] = sums["scales"] / count.examples
        return averages

    def operators(
        self, blocks: Sequence[PreconditionerBlock], states: Sequence[State], settings: Sequence[Mapping[str, Any]]
    ) -> list[Operator | None]:
        """A new basis for every block with S in it, then (diag(S) + λ)⁻¹."""
        operators: list[Operator | None] = []
        for state, found in zip(states, eigenbases([kronecker(state) for state in states]), strict=True):
            if found is None or any(base is None for base in found.bases):
                operators.append(found)
                continue
            g, a = found.bases
            assert g is not None
            assert a is not None
            scales = found.values
            if "basis_input" in state:
                small = torch.finfo(g.dtype).tiny ** 0.5
                left = flushed(grouped_product(g.mT, state["basis_gradient"]).square(), small)
                right = flushed(grouped_product(state["basis_input"].mT, a).square(), small)
                scales = flushed(grouped_product(grouped_product(left, state["scales"]), right))
            state.update(basis_gradient=g, basis_input=a, scales=scales)
            operators.append(Eigenbasis((g, a), scales.clone()))
        return damped_inverses(operators, settings)

    def renew(self, state: State, settings: Mapping[str, Any]) -> Operator | None:
        """(diag(S) + λ)⁻¹ in the basis of the last refresh."""
        if "basis_input" not in state:
            return None
        return Eigenbasis((state["basis_gradient"], state["basis_input"]), 1 / (state["scales"] + settings["damping"]))
