"""EKFAC: K-FAC's eigenbasis with its own eigenvalues, S = E[(Q_Gᵀ DW_n Q_A)²], kept up to date between refreshes (ren
1.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from curvlab.capture.sample import Sample
from curvlab.curvatures.curvature import Batch, PreconditionerBlock, State
from curvlab.curvatures.kfac import KfacCurvature, invert, kronecker
from curvlab.linalg.flushed import flushed
from curvlab.linalg.grouped_product import grouped_product
from curvlab.operators.eigenbasis import Eigenbasis, eigenbases
from curvlab.operators.operator import Operator
from curvlab.statistics.rotated_squares import rotated_squares


class EkfacCurvature(KfacCurvature):
    """F ≈ (Q_G ⊗ Q_A) diag(S) (Q_G ⊗ Q_A)ᵀ.

    S starts as the factors' own eigenvalues; then the second moments of the rotated per-example gradients are averaged
    in the basis. A new basis R takes over what the old one, Q, knew: diag(Rᵀ Q diag(S) Qᵀ R) = (R_GᵀQ_G)² S (Q_AᵀR_A)².
    """

    def measure(self, unit: PreconditionerBlock, sample: Sample, state: State) -> State:
        """K-FAC's sums, and Σ (Q_Gᵀ DW_n Q_A)² in the current basis."""
        sums = super().measure(unit, sample, state)
        if "basis_input" in state:
            sums["scales"] = rotated_squares(sample, state["basis_gradient"], state["basis_input"])
        return sums

    def average(self, unit: PreconditionerBlock, sums: State, batch: Batch) -> State:
        """K-FAC's averages, and S over examples."""
        averages = super().average(unit, sums, batch)
        if "scales" in sums:
            averages["scales"] = sums["scales"] / batch.examples
        return averages

    def operators(
        self, units: Sequence[PreconditionerBlock], states: Sequence[State], settings: Sequence[Mapping[str, Any]]
    ) -> list[Operator | None]:
        """A new basis for every unit with S in it, then (diag(S) + λ)⁻¹."""
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
        return invert(operators, settings)

    def renew(self, state: State, settings: Mapping[str, Any]) -> Operator | None:
        """(diag(S) + λ)⁻¹ in the basis of the last refresh."""
        if "basis_input" not in state:
            return None
        return Eigenbasis((state["basis_gradient"], state["basis_input"]), 1 / (state["scales"] + settings["damping"]))
