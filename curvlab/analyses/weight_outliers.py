"""Outliers of a weight: how far its largest rows and columns are above ordinary ones (docs/quantisation.md)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from curvlab.analyses.weight_statistics import stacked_blocks, weight_blocks
from curvlab.linalg.float64 import double, pieces
from curvlab.operators.summary import QUANTILE_LEVELS
from curvlab.shapes import Float, Num

OUTLIER = 6.0
"""A row, a column or a channel is an outlier above this many times the median one."""


@dataclass(frozen=True)
class WeightRange:
    """What a quantiser of the weight W `[o, i]` meets; the rows of all groups of a grouped layer are counted together.

    `largest` is max|W|, `kurtosis` E[(w − w̄)⁴]/E[(w − w̄)²]² over all entries (3 for normal numbers). `row_maxima` are
    the quantiles, at the levels of the JSON's settings, of m_r = max_c |W_rc|, the scale that a quantiser per output
    channel uses. `row_ratio` = max m_r / median m_r says how much coarser one scale for the whole weight is than one
    for its typical row; `column_ratio` is the same of the columns, whose outliers spoil the scale of every row.
    `outlier_rows` and `outlier_columns` count what is above `OUTLIER` times the median, `worst_row` and `worst_column`
    are the places of the largest. A ratio is None where a row or column has fewer than two entries, or the median is 0.
    """

    largest: float
    kurtosis: float | None
    row_maxima: tuple[float, ...]
    row_ratio: float | None
    column_ratio: float | None
    outlier_rows: int
    outlier_columns: int
    worst_row: int
    worst_column: int


def unreadable(weight: Tensor) -> str | None:
    """Why the weight has no range, or None."""
    if weight.is_complex():
        return "complex numbers are not analysed"
    if weight.numel() == 0:
        return "the weight has no entries"
    wrong = sum(int((~piece.isfinite()).sum()) for _, piece in pieces(weight.reshape(1, 1, -1)))
    return f"{wrong} of {weight.numel()} entries of the weight are not finite" if wrong else None


def weight_range(blocks: Num[Tensor, "g o i"]) -> WeightRange:
    """The range of a weight in one block per group, in float64 whatever its dtype, converted piece by piece."""
    groups, _, width = blocks.shape
    columns = torch.zeros(groups, width, dtype=torch.float64)
    rows, total = [], 0.0
    for place, piece in pieces(blocks):
        sizes = piece.abs()
        rows.append(sizes.amax(2).flatten().cpu())
        columns[place] = torch.maximum(columns[place], sizes.amax(1).cpu())
        total += piece.sum().item()
    mean, second, fourth = total / blocks.numel(), 0.0, 0.0
    for _, piece in pieces(blocks):
        squares = (piece - mean).square()
        second += squares.sum().item()
        fourth += squares.square().sum().item()
    by_row, by_column = torch.cat(rows), columns.flatten()
    row_ratio, outlier_rows = outliers(by_row)
    column_ratio, outlier_columns = outliers(by_column)
    return WeightRange(
        largest=by_row.max().item(),
        kurtosis=blocks.numel() * fourth / second**2 if second > 0 else None,
        row_maxima=tuple(by_row.quantile(torch.tensor(QUANTILE_LEVELS, dtype=torch.float64)).tolist()),
        row_ratio=row_ratio if width > 1 else None,
        column_ratio=column_ratio if blocks.shape[1] > 1 else None,
        outlier_rows=outlier_rows if width > 1 else 0,
        outlier_columns=outlier_columns if blocks.shape[1] > 1 else 0,
        worst_row=int(by_row.argmax()),
        worst_column=int(by_column.argmax()),
    )


def stacked_ranges(
    weights: Sequence[Tensor], groups: int = 1, transposed: bool = False
) -> list[tuple[WeightRange | None, str | None]]:
    """`weight_range` of each of several weights of one shape, dtype and device, computed together; where there is none,
    `unreadable` says why.

    Several weights are copied and converted at once: they should be small.
    """
    if len(weights) == 1 or weights[0].is_complex() or weights[0].numel() == 0:
        return [_alone(weight.detach(), groups, transposed) for weight in weights]
    stack = stacked_blocks(double(torch.stack([weight.detach() for weight in weights])), groups, transposed)
    finite = stack.isfinite().flatten(1).all(1).tolist()
    kept = [place for place, sound in enumerate(finite) if sound]
    found = iter(_ranges(stack if len(kept) == len(finite) else stack[kept]) if kept else ())
    return [
        (next(found), None) if sound else (None, unreadable(weight))
        for weight, sound in zip(weights, finite, strict=True)
    ]


def _alone(weight: Tensor, groups: int, transposed: bool) -> tuple[WeightRange | None, str | None]:
    note = unreadable(weight)
    return (None, note) if note else (weight_range(weight_blocks(weight, groups, transposed)), None)


def _ranges(stack: Float[Tensor, "b g o i"]) -> list[WeightRange]:
    """`weight_range` of every finite weight of a stack in float64, in a few calls for all of them."""
    sizes, (_, _, height, width) = stack.abs(), stack.shape
    by_row, by_column = sizes.amax(3).flatten(1).cpu(), sizes.amax(2).flatten(1).cpu()
    entries = stack.flatten(1)
    squares = (entries - entries.mean(1, keepdim=True)).square()
    second, fourth = squares.sum(1), squares.square().sum(1)
    kurtosis = (entries.shape[1] * fourth / second.square()).where(second > 0, torch.nan)
    quantiles = by_row.quantile(torch.tensor(QUANTILE_LEVELS, dtype=torch.float64), dim=1).T
    (row_ratio, many_rows), (column_ratio, many_columns) = _all_outliers(by_row), _all_outliers(by_column)
    columns = (
        *(by_row.amax(1).tolist(), kurtosis.tolist(), quantiles.tolist(), row_ratio, column_ratio),
        *(many_rows, many_columns, by_row.argmax(1).tolist(), by_column.argmax(1).tolist()),
    )
    return [
        WeightRange(
            largest=largest,
            kurtosis=None if math.isnan(peaked) else peaked,
            row_maxima=tuple(maxima),
            row_ratio=of_rows if width > 1 else None,
            column_ratio=of_columns if height > 1 else None,
            outlier_rows=rows if width > 1 else 0,
            outlier_columns=cols if height > 1 else 0,
            worst_row=row,
            worst_column=column,
        )
        for largest, peaked, maxima, of_rows, of_columns, rows, cols, row, column in zip(*columns, strict=True)
    ]


def _all_outliers(values: Float[Tensor, "b n"]) -> tuple[list[float | None], list[int]]:
    """`outliers` of every row."""
    median = values.quantile(0.5, dim=1, keepdim=True)
    ratios = (values.amax(1) / median[:, 0]).tolist()
    counts = ((values > OUTLIER * median) & (median > 0)).sum(1).tolist()
    known = (median[:, 0] > 0).tolist()
    return [ratio if there else None for ratio, there in zip(ratios, known, strict=True)], counts


def outliers(values: Float[Tensor, " n"]) -> tuple[float | None, int]:
    """max v / median v, and how many v are above `OUTLIER` times the median; None and 0 where the median is 0.

    The median of an even number of values is the mean of the middle two.
    """
    median = values.quantile(0.5).item()
    if median <= 0:
        return None, 0
    return values.max().item() / median, int((values > OUTLIER * median).sum())
