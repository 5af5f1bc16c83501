"""K-FAC: F ≈ G ⊗ A per layer, direction (G + …)⁻¹ m (A + …)⁻¹ (grosse Alg. 1, eq. 23, 24; ren Alg. 7, 12)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor

from curvlab.capture.sample import Sample
from curvlab.capture.survey import Survey
from curvlab.curvatures.curvature import Batch, Curvature, PreconditionerBlock, Source, State, layer_units
from curvlab.linalg.gram import mirrored, upper_gram
from curvlab.operators.damp import exact, factored
from curvlab.operators.eigenbasis import eigenbases
from curvlab.operators.operator import Diagonal, Grouped, GroupedKronecker, Kronecker, Operator
from curvlab.operators.power import powers
from curvlab.statistics.feature_moments import append_one

DampingRule = Literal["factored", "exact", "equal"]
"""How λ enters: per factor by π (eq. 24), in the eigenbasis (eq. 23), or per factor with π = 1 (ren Alg. 7)."""


class KfacCurvature(Curvature):
    """Factors A = 1/N Σ āāᵀ and G = 1/(NT) Σ ggᵀ of every layer that is a dense map.

    Args:
        rule: how damping enters.
        kfac_approx: "expand" or "reduce".
        source: "pseudo", or "data" for the empirical Fisher (KFAC-EF).
    """

    def __init__(self, rule: DampingRule = "factored", kfac_approx: str = "expand", source: Source = "pseudo") -> None:
        self.rule, self.kfac_approx, self.source = rule, kfac_approx, source

    def units(self, found: Survey | None, parameters: Mapping[str, Tensor]) -> list[PreconditionerBlock]:
        """One per dense layer; a table shared by two kinds of layers is one unit of the first that has it."""
        taken: set[str] = set()
        units = []
        for unit in layer_units(found):
            if taken.isdisjoint(unit.parameters.values()):
                taken.update(unit.parameters.values())
                units.append(unit)
        return units

    def measure(self, unit: PreconditionerBlock, sample: Sample, state: State) -> State:
        """Σ āāᵀ (upper triangle) and Σ ggᵀ."""
        if self.kfac_approx == "reduce":
            features = sample.features.mean(2)
            if sample.layer.biased:
                features = F.pad(features, (0, 1), value=1.0)
            return {"input": upper_gram(features), "gradient": upper_gram(sample.output_gradients.sum(2))}
        moments = sample.feature_moments()
        second = moments.second
        if sample.layer.biased:
            second = append_one(second, moments.total)
            second[:, -1, -1] = moments.rows
        return {"input": second, "gradient": sample.output_gradient_moment}

    def average(self, unit: PreconditionerBlock, sums: State, batch: Batch) -> State:
        """A over examples, G over rows ("reduce": over examples)."""
        a = sums["input"].div_(batch.examples)
        rows = batch.examples if self.kfac_approx == "reduce" else batch.rows
        return {"input": a if a.ndim == 2 else mirrored(a), "gradient": mirrored(sums["gradient"].div_(rows))}

    def operators(
        self, units: Sequence[PreconditionerBlock], states: Sequence[State], settings: Sequence[Mapping[str, Any]]
    ) -> list[Operator | None]:
        """(G ⊗ A + λI)⁻¹, or its factored stand-in."""
        plain = [kronecker(state) for state in states]
        if self.rule == "exact":
            return invert(eigenbases(plain), settings)
        pi: Literal["trace"] | float = "trace" if self.rule == "factored" else 1.0
        damped = [factored(group["damping"], pi)(operator) for operator, group in zip(plain, settings, strict=True)]
        return powers(damped, [-1.0] * len(damped))


def kronecker(state: State) -> Operator:
    """G ⊗ A as it acts on W̄ `[g, o, i]`; a one-hot input factor is diagonal."""
    a, g = state["input"], state["gradient"]
    if a.ndim == 2:
        return Kronecker((Grouped(g), Diagonal(a[0])))
    return GroupedKronecker((Grouped(g), Grouped(a)))


def invert(operators: Sequence[Operator | None], settings: Sequence[Mapping[str, Any]]) -> list[Operator | None]:
    """(F + λI)⁻¹ of those operators that are there."""
    there = [(i, operator) for i, operator in enumerate(operators) if operator is not None]
    inverted = powers([exact(settings[i]["damping"])(operator) for i, operator in there], [-1.0] * len(there))
    found: list[Operator | None] = [None] * len(operators)
    for (i, _), operator in zip(there, inverted, strict=True):
        found[i] = operator
    return found
