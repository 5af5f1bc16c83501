"""The order of a table's rows: the model's own, or by one number, the largest first."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from curvlab.analyses.results import LayerResult
    from curvlab.operators.summary import Spectrum

Sort = Literal[
    "model",
    "condition",
    "name",
    "parameters",
    "stable-rank",
    "effective-rank",
    "tail",
    "dead",
    "identity",
    "lnb",
    "input-factor",
    "gradient-factor",
    "kronecker",
]

Rank = tuple[float, float]
"""What layers are compared by: a number, and among equal ones (two singular matrices) a second."""


def ordered(layers: Sequence[LayerResult], sort: Sort) -> list[LayerResult]:
    """`layers` in that order; equal ones stay in the model's order, and those without the number come last.

    "condition" takes the condition number of a layer's A ⊗ G, else of its features, else of its weight. An infinite
    one is above all others, above them only that of a weight with entries that are not finite; singular matrices are
    compared by their condition over their range.
    """
    if sort == "model":
        return list(layers)
    if sort == "name":
        return sorted(layers, key=lambda layer: layer.name)
    ranked = [(_RANKS[sort](layer), layer) for layer in layers]
    known = sorted(((rank, layer) for rank, layer in ranked if rank), key=lambda pair: pair[0], reverse=True)
    return [layer for _, layer in known] + [layer for rank, layer in ranked if rank is None]


def _number(result: object, field: str) -> Rank | None:
    """`result.field`, largest first; None when either does not exist."""
    value = getattr(result, field, None)
    return None if value is None else (float(value), 0.0)


def _condition(value: float | None, over_range: float | None = None) -> Rank:
    return (math.inf if value is None else value, over_range or 0.0)


def _whitening(layer: LayerResult, name: str) -> Rank | None:
    if layer.moments is None:
        return None
    over_range = getattr(layer.moments.condition_number_nonzero, name)
    return _condition(getattr(layer.moments.condition_number, name), over_range)


def _factor(layer: LayerResult, name: str) -> Rank | None:
    factor: Spectrum | None = getattr(layer.kfac, name, None)
    return None if factor is None else _condition(factor.condition_number, factor.condition_number_nonzero)


def _weight(layer: LayerResult) -> Rank | None:
    """None where the condition number is null because it was not computed: then the rank is too."""
    if layer.weights is None:
        return None
    if layer.weights.nonfinite:
        return math.inf, math.inf
    return None if layer.weights.rank is None else _condition(layer.weights.condition_number)


def _worst(layer: LayerResult) -> Rank | None:
    return _factor(layer, "kronecker") or _whitening(layer, "identity") or _weight(layer)


_RANKS: Mapping[str, Callable[[LayerResult], Rank | None]] = {
    "condition": _worst,
    "parameters": lambda layer: _number(layer, "parameters"),
    "stable-rank": lambda layer: _number(layer.weights, "stable_rank"),
    "effective-rank": lambda layer: _number(layer.moments or layer.weights, "effective_rank"),
    "tail": lambda layer: _number(layer.weights, "tail_exponent"),
    "dead": lambda layer: _number(layer.moments, "dead"),
    "identity": lambda layer: _whitening(layer, "identity"),
    "lnb": lambda layer: _whitening(layer, "lnb"),
    "input-factor": lambda layer: _factor(layer, "input_factor"),
    "gradient-factor": lambda layer: _factor(layer, "gradient_factor"),
    "kronecker": lambda layer: _factor(layer, "kronecker"),
}
