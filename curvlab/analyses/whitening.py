"""Whitening table: the conditioning of a layer's metric, before and after normalising its input (lnb 3.3, 3.5)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from curvlab.analyses.features import constant_share
from curvlab.analyses.results import QUANTILE_LEVELS, Spectrum, Whitening
from curvlab.operators.double import double
from curvlab.operators.matrix import matrix
from curvlab.operators.operator import Dense, Diagonal, Grouped, LowRank, Operator
from curvlab.operators.safe_eigvalsh import safe_eigvalsh
from curvlab.operators.spectrum import rounding, spectrum
from curvlab.shapes import Float

_SINGULAR = Whitening(None, None, None, None, None)


def whitening(
    second: Operator,
    mean: Float[Tensor, "*g d"],
    biased: bool,
    count: int,
    levels: Sequence[float] = QUANTILE_LEVELS,
    resolution: float = 0.0,
) -> tuple[Whitening, Spectrum]:
    """κ(M), κ(diag(Σ, 1)), κ(D^-½MD^-½), κ(W̃ᵀMW̃) and 1 for M = E[āāᵀ]; and the spectrum of M (methods: section 3).

    With a bias, W̃ = [[V^-½, 0], [−μᵀV^-½, 1]] with V = diag Σ (lnb 3.3, with the approximation of 3.5). Its W̃ᵀā is
    (V^-½(a − μ), 1), so that W̃ᵀMW̃ = diag(V^-½ΣV^-½, 1): the correlation matrix and a 1, which is how it is
    computed. Without a bias lnb's preconditioner is D⁻¹, D = diag M, and `centered` is κ(Σ). Groups make one
    block-diagonal matrix: extremes are over all of them.

    Each number is None where its own matrix is singular by the rule of `spectrum`. No normalisation changes the
    rank, but the rule sees rounding relative to the largest eigenvalue, so that a better scaled matrix may show a
    full rank that M hides; `whitened` exists when any of them does. For Σ the rounding is that of the M it was
    subtracted from.

    Args:
        second: E[aaᵀ] of the features a, without the 1; the rows of a `LowRank` are the features themselves.
        mean: μ `[d]`, or `[g, d]` for groups.
        biased: whether a 1 is appended to the features.
        count: rows that were seen, examples times positions.
        levels: of the quantiles of the spectrum.
        resolution: relative rounding of the products in `second`, as in `spectrum`.

    Raises:
        NumericalError: the moments are not finite, or not those of any data.
        MemoryBudgetError: a large diagonal second moment that is not that of one-hot features.
    """
    whole = metric(second, mean, biased)
    summary = spectrum(whole, count, levels, resolution)
    width = (second.stack.shape[1] if isinstance(second, Grouped) else second.size) + biased
    if summary.rank == 0 or count < width:  # fewer rows than columns: singular in every scaling
        return _SINGULAR, summary
    if isinstance(second, Diagonal):
        values, mu = double(second.values), double(mean).flatten()
        if not bool((values > 0).all()):
            return _SINGULAR, summary
        # diag(f) − μμᵀ is singular when μᵀdiag(f)⁻¹μ = 1: always, for one-hot features.
        if (1 - (mu.square() / values).sum()).item() <= rounding(width, count, resolution):
            return (_SINGULAR if biased else Whitening(summary.condition_number, None, 1.0, 1.0, 1.0)), summary
    stack = _stack(whole)
    lost = rounding(stack.shape[0] * width, count, resolution)
    return _whitening(stack, double(mean), biased, summary, lost, constant_share(resolution)), summary


def metric(second: Operator, mean: Float[Tensor, "*g d"], biased: bool) -> Operator:
    """M = E[āāᵀ] = [[E[aaᵀ], μ], [μᵀ, 1]] with a bias (lnb eq. 12), E[aaᵀ] without, in the cheapest form.

    Arguments and errors as in `whitening`.
    """
    if not biased:
        return second
    if isinstance(second, LowRank) and abs(second.scale * second.rows.shape[0] - 1) < 1e-12:
        ones = second.rows.new_ones(second.rows.shape[0], 1)
        return LowRank(torch.cat([second.rows, ones], dim=1), second.scale)
    stack = _stack(second)
    groups, size, _ = stack.shape
    joined = stack.new_ones(groups, size + 1, size + 1)
    joined[:, :size, :size] = stack
    joined[:, :size, size] = joined[:, size, :size] = double(mean).reshape(groups, size)
    return Grouped(joined) if isinstance(second, Grouped) else Dense(joined[0])


def _whitening(
    stack: Float[Tensor, "g w w"],
    mean: Float[Tensor, "*g d"],
    biased: bool,
    summary: Spectrum,
    lost: float,
    constant: float,
) -> Whitening:
    """The table from the metrics of all groups, written out; one matrix beside them at a time.

    Args:
        stack: M of every group.
        mean: μ of every group.
        biased: whether M holds a row of the 1.
        summary: spectrum of M.
        lost: share of the largest eigenvalue that is rounding.
        constant: share of E[a_j²] up to which a variance is rounding.
    """
    groups = stack.shape[0]
    mu = mean.reshape(groups, -1)
    energy = stack.diagonal(dim1=1, dim2=2)
    variance = energy[:, : mu.shape[1]] - mu.square()
    ratio = energy[:, : mu.shape[1]] / variance

    centered = diagonal = lnb = None
    if bool((ratio > 0).all()) and bool((ratio < 1 / constant).all()):
        sigma = stack[:, : mu.shape[1], : mu.shape[1]] - mu[:, :, None] * mu[:, None, :]
        centered = _condition(_eigenvalues(sigma, biased), lost * (summary.max or 0.0))
        if biased:
            sigma.mul_(variance.rsqrt()[:, :, None]).mul_(variance.rsqrt()[:, None, :])
            values = _eigenvalues(sigma, biased)
            lnb = _condition(values, lost * torch.cat([values, ratio], dim=1).max().item())
        del sigma
    if bool((energy > 0).all()):
        scaled = stack * energy.rsqrt()[:, :, None]
        values = safe_eigvalsh(scaled.mul_(energy.rsqrt()[:, None, :]))
        diagonal = _condition(values, lost * values.max().item())
    if not biased:
        lnb = diagonal
    full = any(number is not None for number in (summary.condition_number, centered, diagonal, lnb))
    return Whitening(summary.condition_number, centered, diagonal, lnb, 1.0 if full else None)


def _eigenvalues(stack: Float[Tensor, "g d d"], biased: bool) -> Float[Tensor, "g w"]:
    """Eigenvalues of every diag(stack[g], 1), or of stack[g] without a bias."""
    values = safe_eigvalsh(stack)
    return torch.cat([values, values.new_ones(len(values), int(biased))], dim=1)


def _condition(values: Float[Tensor, "g w"], floor: float) -> float | None:
    """λ_max/λ_min, or None when λ_min is under what rounding can make."""
    least, most = (bound.item() for bound in torch.aminmax(values))
    return most / least if least > 0 and least >= floor else None


def _stack(operator: Operator) -> Float[Tensor, "g d d"]:
    return double(operator.stack) if isinstance(operator, Grouped) else matrix(operator)[None]
