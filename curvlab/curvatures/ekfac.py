"""EKFAC: K-FAC's eigenbasis with its own eigenvalues, S = E[(Q_Gᵀ DW_n Q_A)²], kept up to date between refreshes (ren
1.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from curvlab.capture.sample import Sample, per_example_gradients
from curvlab.curvatures.curvature import Batch, State, Unit
from curvlab.curvatures.kfac import KfacCurvature, invert, kronecker
from curvlab.operators.eigenbasis import Eigenbasis, eigenbases
from curvlab.operators.operator import Operator


class EkfacCurvature(KfacCurvature):
    """F ≈ (Q_G ⊗ Q_A) diag(S) (Q_G ⊗ Q_A)ᵀ.

    The basis is renewed with the operators; until then the second moments S of the rotated per-example gradients are
    averaged in it, starting from the factors' own eigenvalues.
    """

    def measure(self, unit: Unit, sample: Sample, state: State) -> State:
        """K-FAC's sums, and Σ (Q_Gᵀ DW_n Q_A)² in the current basis."""
        sums = super().measure(unit, sample, state)
        if "basis_input" in state:
            gradients = per_example_gradients(sample.layer, sample.features, sample.signals)
            rotated = state["basis_gradient"].mT @ gradients @ state["basis_input"]
            sums["scales"] = rotated.square().sum(0)
        return sums

    def average(self, unit: Unit, sums: State, batch: Batch) -> State:
        """K-FAC's averages, and S over examples."""
        averages = super().average(unit, sums, batch)
        if "scales" in sums:
            averages["scales"] = sums["scales"] / batch.examples
        return averages

    def operators(
        self, units: Sequence[Unit], states: Sequence[State], settings: Sequence[Mapping[str, Any]]
    ) -> list[Operator | None]:
        """A new basis for every unit, S carried over into it as the factors' eigenvalues, then (diag(S) + λ)⁻¹."""
        found = eigenbases([kronecker(state) for state in states])
        operators: list[Operator | None] = []
        for state, basis in zip(states, found, strict=True):
            if basis is None or any(base is None for base in basis.bases):
                operators.append(basis)
                continue
            g, a = basis.bases
            assert g is not None
            assert a is not None
            state.update(basis_gradient=g, basis_input=a, scales=basis.values)
            operators.append(basis)
        return invert(operators, settings)

    def renew(self, state: State, settings: Mapping[str, Any]) -> Operator | None:
        """(diag(S) + λ)⁻¹ in the basis of the last refresh."""
        if "basis_input" not in state:
            return None
        return Eigenbasis((state["basis_gradient"], state["basis_input"]), 1 / (state["scales"] + settings["damping"]))
