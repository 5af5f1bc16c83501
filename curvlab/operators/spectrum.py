"""`spectrum`: the numbers that summarise an operator's eigenvalues."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import singledispatch

import torch
from torch import Tensor

from curvlab.errors import NumericalError
from curvlab.operators.eigenvalues import Factored, factored_eigenvalues, kronecker_lists
from curvlab.operators.operator import Grouped, GroupedKronecker, Kronecker, Operator
from curvlab.operators.quantiles import quantiles
from curvlab.operators.sketch import error, error_of_product, is_exact
from curvlab.operators.summary import QUANTILE_LEVELS, Spectrum
from curvlab.operators.trace import trace
from curvlab.shapes import Float

INDEFINITE = 1e-3
"""A negative eigenvalue above this share of the largest is not the rounding of a float32 product but an error."""


def rounding(size: int, count: int, resolution: float = 0.0) -> float:
    """max(d, count)·eps(float64), or `resolution` if more: the share of λ_max under which λ counts as zero."""
    return max(max(size, count) * torch.finfo(torch.float64).eps, resolution)


@singledispatch
def spectrum(
    operator: Operator, count: int = 0, levels: Sequence[float] = QUANTILE_LEVELS, resolution: float = 0.0
) -> Spectrum:
    """λ_max, λ_min, Σλ, rank, exp(−Σ p ln p) with p = λ/Σλ, λ_max/λ_min and quantiles (docs/curvature.md).

    An eigenvalue under max(d, count)·eps·λ_max counts as zero, and is 0 in `min` and in the quantiles. Quantiles are
    numpy's "linear" ones, exact.

    A Kronecker product is never formed. The rule for zero is applied to each factor; then extremes, trace, rank
    and condition number are products of the factors'. So is the effective rank, since entropy adds: when p_i q_j are
    the shares of the products in their sum, −Σ p_i q_j (ln p_i + ln q_j) = H(p) + H(q). Groups are one
    block-diagonal matrix: with w_g the share of group g in the trace, H = H(w) + Σ w_g H_g.

    Args:
        operator: symmetric positive semi-definite.
        count: rows (examples times positions) that it was estimated from; 0 = not an estimate.
        levels: of the quantiles; empty (then `quantiles` is None) where they are not needed, as in the halves of a
            split.
        resolution: relative rounding that the matrix holds: eps of float32 if its products were summed in it, 0 for
            float64. Eigenvalues under this share of the largest count as zero too: they are the rounding's.

    Raises:
        NumericalError: non-finite numbers, or a clearly negative eigenvalue.
    """
    lists = factored_eigenvalues(operator)
    found = _summary(lists, trace(operator), [count] * len(lists), levels, resolution)
    return found if is_exact(operator) else replace(found, sketch_error=error(operator))


def kronecker_spectra(
    factors: Sequence[Operator],
    count: int | Sequence[int] = 0,
    levels: Sequence[float] = QUANTILE_LEVELS,
    resolution: float = 0.0,
) -> tuple[Spectrum, ...]:
    """The spectrum of every factor and, last, of their Kronecker product, with each factor's eigenvalues found once.

    Factors that are all `Grouped` are multiplied group by group.

    Args:
        factors: one or more.
        count: rows that the factors were estimated from, one number for all or one each.
        levels, resolution: and errors, as in `spectrum`.
    """
    grouped = [factor for factor in factors if isinstance(factor, Grouped)]
    together = len(grouped) == len(factors)
    product = GroupedKronecker(tuple(grouped)) if together else Kronecker(tuple(factors))
    lists = [factored_eigenvalues(factor) for factor in factors]
    if not together:
        lists = [kronecker_lists([one]) for one in lists]
    rows = [count] * len(factors) if isinstance(count, int) else count
    counts = [(number,) * len(one) for number, one in zip(rows, lists, strict=True)]
    each = [
        _summary(one, trace(factor), numbers, levels, resolution)
        for one, factor, numbers in zip(lists, factors, counts, strict=True)
    ]
    both = _summary(sum(lists, ()), trace(product), sum(counts, ()), levels, resolution)
    if is_exact(product):
        return (*each, both)
    errors = [error(factor) for factor in factors]
    both = replace(both, sketch_error=error_of_product([one.max or 0.0 for one in each], errors))
    own = (
        one if is_exact(factor) else replace(one, sketch_error=bound)
        for one, factor, bound in zip(each, factors, errors, strict=True)
    )
    return (*own, both)


def _summary(
    raw: Factored, total: float, counts: Sequence[int], levels: Sequence[float], resolution: float
) -> Spectrum:
    """The spectrum of a matrix of trace `total` from the lists of its eigenvalues and the rows behind each list."""
    size = raw[0].shape[0] * math.prod(values.shape[1] for values in raw)
    if size == 0:
        return Spectrum(0, 0.0, None, None, 0, None, None, None, None)
    tops = [values.max().item() for values in raw]
    lists = tuple(_resolved(*one, resolution) for one in zip(raw, tops, counts, strict=True))
    positive = torch.stack([(values > 0).sum(1) for values in lists]).prod(0)
    rank, largest = int(positive.sum()), math.prod(tops)
    if rank == 0:
        return Spectrum(size, total, 0.0, 0.0, 0, None, None, None, (0.0,) * len(levels) or None)
    # From here on the lists are scaled to a largest eigenvalue of 1, so that no product over- or underflows.
    most = torch.stack([values.amax(1) for values in lists]).prod(0).max().item()
    least = torch.stack([values.where(values > 0, math.inf).amin(1) for values in lists]).prod(0).min().item()
    condition = most / least
    full = rank == size
    return Spectrum(
        size=size,
        trace=total,
        max=most * largest,
        min=least * largest if full else 0.0,
        rank=rank,
        effective_rank=math.exp(_entropy(lists)),
        condition_number=condition if full else None,
        condition_number_nonzero=condition,
        quantiles=tuple((quantiles(lists, levels) * largest).tolist()) if levels else None,
    )


def _resolved(values: Float[Tensor, "g n"], top: float, count: int, resolution: float) -> Float[Tensor, "g n"]:
    """values/top, with 0 for what cannot be told from 0."""
    if values.min().item() < -INDEFINITE * max(top, 0.0):
        raise NumericalError(
            f"a matrix of size {values.numel()} has eigenvalues from {values.min().item():.3g} to {top:.3g}",
            "it is not positive semi-definite, as every curvature matrix is",
            "check what was accumulated",
        )
    if top <= 0:
        return torch.zeros_like(values)
    scaled = values / top
    return scaled.where(scaled >= rounding(values.numel(), count, resolution), 0.0)


def _entropy(lists: Factored) -> float:
    """−Σ p ln p over all products, from the entropies of the lists."""
    sums = torch.stack([values.sum(1) for values in lists])
    weights = sums.prod(0) / sums.prod(0).sum()
    within = sum(_row_entropy(values) for values in lists)
    return float(_row_entropy(weights[None])[0] + (weights * within).sum())


def _row_entropy(values: Float[Tensor, "g n"]) -> Float[Tensor, " g"]:
    """−Σ p ln p with p = values/Σ values of each row; 0 for a row of zeros."""
    total = values.sum(1, keepdim=True)
    shares = values / total.where(total > 0, 1.0)
    return -torch.xlogy(shares, shares).sum(1)
