"""Whitening tables: the conditioning of a layer's metric, before and after normalising its input (LNB, sections 3.3,
3.5)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from curvlab.analyses.features import constant_share
from curvlab.analyses.normalised import (
    Condition,
    Normalised,
    Rounding,
    normalised_diagonal,
    normalised_matrices,
    normalised_rows,
)
from curvlab.curvatures.metric import are_features, metric, stack
from curvlab.linalg.float64 import double
from curvlab.operators.operator import Diagonal, Grouped, LowRank, Operator
from curvlab.operators.sketch import Sketch
from curvlab.operators.spectrum import rounding, spectrum
from curvlab.operators.summary import QUANTILE_LEVELS, Spectrum
from curvlab.shapes import Float


@dataclass(frozen=True)
class Whitening:
    """A condition number of the metric over ā after each normalisation (LNB, sections 3.3, 3.5).

    In `MomentsResult.condition_number` None is infinite (singular), in `condition_number_nonzero` it is of a zero
    matrix.
    """

    identity: float | None
    centered: float | None
    diagonal: float | None
    lnb: float | None
    whitened: float | None


Tables = tuple[Whitening, Whitening, Spectrum]
"""Condition numbers, condition numbers over the range, and the spectrum of M."""


def whitening(
    second: Operator,
    mean: Float[Tensor, "*g d"],
    biased: bool,
    count: int,
    levels: Sequence[float] = QUANTILE_LEVELS,
    resolution: float = 0.0,
) -> Tables:
    """κ(M), κ(diag(Σ, 1)), κ(D^-½MD^-½), κ(W̃ᵀMW̃) and 1 for M = E[āāᵀ], whole and over the range (docs/curvature.md).

    With a bias, W̃ = [[V^-½, 0], [−μᵀV^-½, 1]] with V = diag Σ (LNB, section 3.3, with the approximation of 3.5). Its
    W̃ᵀā is (V^-½(a − μ), 1), so that W̃ᵀMW̃ = diag(V^-½ΣV^-½, 1): the correlation matrix and a 1, which is how it is
    computed. Without a bias lnb's preconditioner is D⁻¹, D = diag M, and `centered` is κ(Σ). Groups make one
    block-diagonal matrix: extremes are over all of them.

    The first table is of the whole matrices. Each number is None where its own matrix is singular by the rule of
    `spectrum`. No normalisation changes the rank, but the rule sees rounding relative to the largest eigenvalue, so
    that a better scaled matrix may show a full rank that M hides; `whitened` exists when any of them does. For Σ the
    rounding is that of the M it was subtracted from.

    The second is λ_max over the least eigenvalue that is not zero by that same rule, equal to the first where that
    exists. A feature without any energy (E[a_j²] = 0) has no D_jj^-½ and is dropped from D^-½MD^-½; one without
    variance (`constant_features`: dead, or a second bias) has no V_jj^-½ and is dropped from Σ. Nothing is lost: by
    Cauchy and Schwarz M_ij² ≤ M_ii M_jj and Σ_ij² ≤ V_i V_j, so that their rows and columns are zero, and what is
    dropped from the spectrum is one zero each. `whitened` is 1: whitening with the pseudo-inverse root of M makes
    every eigenvalue of its range 1. All are None for M = 0, `centered` also when nothing varies and nothing is biased.

    Fewer rows than features (`LowRank`) are never multiplied out to the size of the features.

    Args:
        second: E[aaᵀ] of the features a, without the 1; the rows of a `LowRank` are the features themselves.
        mean: μ `[d]`, or `[g, d]` for groups.
        biased: whether a 1 is appended to the features.
        count: rows that were seen, examples times positions.
        levels: of the quantiles of the spectrum.
        resolution: relative rounding of the products in `second`, as in `spectrum`.

    Raises:
        NumericalError: the moments are not finite, or not those of any data.
        MemoryBudgetError: a large diagonal second moment with a bias.
    """
    whole = metric(second, mean, biased)
    summary = spectrum(whole, count, levels, resolution)
    if summary.rank == 0 or summary.max is None:
        nothing = _table(None, (None, None, None))
        return nothing, nothing, summary
    limits = Rounding(rounding(summary.size, count, resolution), summary.max, constant_share(resolution))
    if isinstance(second, Diagonal) and not biased:
        found = normalised_diagonal(double(second.values), double(mean).flatten(), limits)
    elif isinstance(second, Sketch):  # of the matrix as it is: what a scaling would make of it is not known
        found = Normalised(*(Condition(None, None),) * 3)
    elif isinstance(second, LowRank) and len(second.rows) < summary.size and are_features(second):
        found = normalised_rows(second.rows, biased, limits)
    else:
        found = normalised_matrices(stack(whole), double(mean), biased, limits)
    width = (second.stack.shape[1] if isinstance(second, Grouped) else second.size) + biased
    if count < width:  # fewer rows than columns: singular in every scaling, whatever rounding has made of it
        found = Normalised(*(Condition(None, one.over_range) for one in found))
    table = _table(summary.condition_number, (one.whole for one in found))
    return table, _table(summary.condition_number_nonzero, (one.over_range for one in found)), summary


def _table(identity: float | None, others: Iterable[float | None]) -> Whitening:
    """`whitened` exists where any number does."""
    centered, diagonal, lnb = others
    exists = any(number is not None for number in (identity, centered, diagonal, lnb))
    return Whitening(identity, centered, diagonal, lnb, 1.0 if exists else None)
