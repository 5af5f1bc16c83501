"""Spectra of a layer's K-FAC factors A and G and of the block A ⊗ G, with split-half errors (docs/curvature.md
and 5)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from curvlab.analyses.results import KfacResult
from curvlab.analyses.split_half import with_split_half
from curvlab.analyses.whitening import metric
from curvlab.capture.survey import LayerBlock
from curvlab.operators.matrix import matrix
from curvlab.operators.operator import Dense, Diagonal, Grouped, LowRank, Operator
from curvlab.operators.spectrum import kronecker_spectra
from curvlab.operators.summary import Spectrum
from curvlab.statistics.plan import Collected, Plan

Factors = tuple[Operator, Operator]
"""A and G."""

_REDUCED = "A=1/N sum_n, G=1/N sum_n (reduce: a averaged, g summed over t)"


def kfac_result(block: LayerBlock, plan: Plan, whole: Collected, halves: Sequence[Collected]) -> KfacResult | None:
    """The K-FAC block of a layer; None if no gradient reached it."""
    factors = kfac_operators(block, plan, whole)
    if factors is None:
        return None
    a, g, both = kronecker_spectra(factors, whole.rows[block.name])
    parts = [kfac_operators(block, plan, half) for half in halves]
    if len(parts) == 2 and parts[0] is not None and parts[1] is not None:
        first, second = (
            kronecker_spectra(part, half.rows[block.name], levels=())
            for part, half in zip(parts, halves, strict=True)
            if part
        )
        a, g, both = (with_split_half(*three) for three in zip((a, g, both), first, second, strict=True))
    result = KfacResult(a, g, both, _pi(a, g))
    return replace(result, normalization=_REDUCED) if plan.reduced else result


def kfac_operators(block: LayerBlock, plan: Plan, part: Collected) -> Factors | None:
    """A and G of one block in the form they were stored in; G is the identity for "forward-only", None where no
    gradient came."""
    name, layer = block.name, block.layer
    if plan.kfac_approx == "reduce" and plan.output_gradients:
        if name not in part.reduced:
            return None
        moments = part.reduced[name]
        a: Operator = _stacked(moments.input_factor(part.examples))
        if moments.output_gradients.total is None:
            return None
        return a, _stacked(moments.gradient_factor(part.examples))
    if name not in part.features:
        return None
    features = part.features[name]
    a = _scaled(metric(features.operator(), features.mean(), layer.biased), part.rows[name] / part.examples)
    if plan.fisher_type == "forward-only":
        ones = torch.ones(layer.groups, layer.out_features, dtype=torch.float64)
        return a, Diagonal(ones[0]) if layer.groups == 1 else Grouped(torch.diag_embed(ones))
    if name not in part.output_gradients:
        return None
    return a, part.output_gradients[name].second.operator(part.rows[name])


def _pi(a: Spectrum, g: Spectrum) -> float | None:
    """π = √((tr A/d_A) / (tr G/d_G)): how factored damping is shared (grosse eq. 24)."""
    if not a.trace or not g.trace:
        return None
    return math.sqrt((a.trace / a.size) / (g.trace / g.size))


def _stacked(stack: torch.Tensor) -> Operator:
    return Dense(stack[0]) if stack.shape[0] == 1 else Grouped(stack)


def _scaled(operator: Operator, factor: float) -> Operator:
    if factor == 1:
        return operator
    if isinstance(operator, LowRank):
        return replace(operator, scale=operator.scale * factor)
    if isinstance(operator, Grouped):
        return Grouped(operator.stack * factor)
    if isinstance(operator, Diagonal):
        return Diagonal(operator.values * factor)
    return Dense(matrix(operator) * factor)
