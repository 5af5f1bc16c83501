"""Condition numbers of a metric after each normalisation of the features, by the form that the metric is stored in."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from curvlab.analyses.rank_one import rank_one_extremes
from curvlab.linalg.eigvalsh import safe_eigvalsh
from curvlab.linalg.float64 import CHUNK, double, pieces
from curvlab.linalg.gram import gram
from curvlab.shapes import Float


class Condition(NamedTuple):
    """λ_max/λ_min of one matrix, None if it is singular; and over its range, None if it is zero."""

    whole: float | None
    over_range: float | None


class Normalised(NamedTuple):
    """κ(diag(Σ, 1)), κ(D^-½MD^-½) and κ(W̃ᵀMW̃), as in `whitening`."""

    centered: Condition
    diagonal: Condition
    lnb: Condition


class Rounding(NamedTuple):
    """What cannot be told from zero.

    Attributes:
        share: of the largest eigenvalue that is rounding.
        largest: λ_max(M): Σ is known to its rounding, since that is what the mean was subtracted from.
        constant: share of E[a_j²] up to which a variance is rounding.
    """

    share: float
    largest: float
    constant: float

    def ratio(self, energy: Float[Tensor, "*d"], variance: Float[Tensor, "*d"]) -> Float[Tensor, "*d"]:
        """E[a_j²]/V_j, by which scaling to unit variance enlarges rounding; 0 for features without variance."""
        return torch.where(variance > self.constant * energy, energy / variance, 0.0)


def normalised_matrices(
    stack: Float[Tensor, "g w w"], mean: Float[Tensor, "*g d"], biased: bool, rounding: Rounding
) -> Normalised:
    """From the metrics of all groups, written out; one matrix beside them at a time.

    Args:
        stack: M of every group.
        mean: μ of every group.
        biased: whether M holds a row of the 1.
        rounding: of M.
    """
    mu = mean.reshape(stack.shape[0], -1)
    size = mu.shape[1]
    energy = stack.diagonal(dim1=1, dim2=2)
    variance = energy[:, :size] - mu.square()
    ratio = rounding.ratio(energy[:, :size], variance)

    # Features that are dropped become zero rows and columns: one eigenvalue 0 each.
    sigma = _scaled(stack[:, :size, :size] - mu[:, :, None] * mu[:, None, :], (ratio > 0).double())
    values = _with_one(sigma, biased)
    centered = _condition(values, rounding.share * rounding.largest, values.numel())
    if biased:
        values = _with_one(_scaled(sigma, torch.where(ratio > 0, variance.rsqrt(), 0.0)), biased)
        lnb = _condition(values, rounding.share * torch.cat([values, ratio], dim=1).max().item(), values.numel())
    del sigma
    values = safe_eigvalsh(_scaled(stack.clone(), _inverse_root(energy)))
    diagonal = _condition(values, rounding.share * values.max().item(), values.numel())
    return Normalised(centered, diagonal, lnb if biased else diagonal)


def normalised_rows(rows: Float[Tensor, "r d"], biased: bool, rounding: Rounding) -> Normalised:
    """From fewer rows than columns, where every matrix is singular: over their ranges, with r × r matrices only.

    SMS with S diagonal is YᵀY/r of the scaled rows Y = X̄S, and has the non-zero eigenvalues of YYᵀ/r; likewise Σ from
    the rows less their mean. The products are summed over pieces of the columns, read once.

    Args:
        rows: the features themselves, without the 1; M is the mean of their outer products.
        biased: whether M holds a row of the 1.
        rounding: of M.
    """
    count = rows.shape[0]
    scaled, centred, standard = double(rows[:, :0]).new_zeros(3, count, count)
    most = 0.0
    # At least an eighth of a product at a time, or adding up the products takes as long as making them.
    for _, piece in pieces(rows.T[None], max(CHUNK, count**2 // 8)):
        x = piece[0]
        energy = x.square().mean(1)
        scaled += gram(x * _inverse_root(energy)[:, None])
        x = x - x.mean(1, keepdim=True)
        variance = x.square().mean(1)
        ratio = rounding.ratio(energy, variance)
        centred += gram(x * (ratio > 0)[:, None])
        if biased:
            standard += gram(x * torch.where(ratio > 0, variance.rsqrt(), 0.0)[:, None])
            most = max(most, ratio.max().item())
    size = rows.shape[1] + biased
    values = safe_eigvalsh((scaled + float(biased)) / count)
    diagonal = _condition(values, rounding.share * values.max().item(), size)
    centered = _condition(_with_one(centred[None] / count, biased), rounding.share * rounding.largest, size)
    if biased:
        values = _with_one(standard[None] / count, biased)
        lnb = _condition(values, rounding.share * max(values.max().item(), most), size)
    return Normalised(centered, diagonal, lnb if biased else diagonal)


def normalised_diagonal(values: Float[Tensor, " d"], mean: Float[Tensor, " d"], rounding: Rounding) -> Normalised:
    """From M = diag(values) without a bias, that of one-hot features: D^-½MD^-½ = 1, and Σ is M less the rank one μμᵀ.

    Args:
        values: E[a_j²].
        mean: μ.
        rounding: of M.
    """
    diagonal = Condition(1.0 if bool((values > 0).all()) else None, 1.0)
    varies = rounding.ratio(values, values - mean.square()) > 0
    if not bool(varies.any()):
        return Normalised(Condition(None, None), diagonal, diagonal)
    floor = rounding.share * rounding.largest
    below, least, most = rank_one_extremes(values[varies], mean[varies], floor, rounding.share)
    over_range = most / least if least > 0 else None
    centered = Condition(over_range if below == 0 and bool(varies.all()) else None, over_range)
    return Normalised(centered, diagonal, diagonal)


def _condition(values: Float[Tensor, "*w"], floor: float, size: int) -> Condition:
    """Condition number of a matrix with `size` eigenvalues: these and zeros; those under `floor` count as zero."""
    positive = values[values >= floor]
    if positive.numel() == 0:
        return Condition(None, None)
    over_range = (positive.max() / positive.min()).item()
    return Condition(over_range if positive.numel() == size else None, over_range)


def _with_one(stack: Float[Tensor, "g d d"], biased: bool) -> Float[Tensor, "g w"]:
    """Eigenvalues of every diag(stack[g], 1), or of stack[g] without a bias."""
    values = safe_eigvalsh(stack)
    return torch.cat([values, values.new_ones(len(values), int(biased))], dim=1)


def _scaled(stack: Float[Tensor, "g d d"], scale: Float[Tensor, "g d"]) -> Float[Tensor, "g d d"]:
    """diag(scale) stack diag(scale), in place."""
    return stack.mul_(scale[:, :, None]).mul_(scale[:, None, :])


def _inverse_root(energy: Float[Tensor, "*d"]) -> Float[Tensor, "*d"]:
    """E[a_j²]^-½, and 0 for features without any energy."""
    return torch.where(energy > 0, energy.rsqrt(), 0.0)
