"""Σ rrᵀ kept as its rows r while those are fewer than its columns: less memory, and its eigenvalues from less work.

Sums and averages hold either `rows` `[g, r, d]` or, under a name of the recipe's own, the matrix `[g, d, d]` or its
diagonal `[g, d]`.
"""

from __future__ import annotations

from collections.abc import Container

import torch

from curvlab.curvatures.curvature import State, plus
from curvlab.linalg.float64 import double_gram
from curvlab.linalg.gram import finished, upper_gram
from curvlab.operators.operator import Dense, Diagonal, Grouped, LowRank, Operator

ROWS = "rows"


def add_rows_or_square(held: State, fresh: State, key: str, own: Container[str]) -> None:
    """Add the sum of one more batch to `held`, as `Curvature.add` does; rows are multiplied out once they are not fewer
    than d."""
    rows = [state[ROWS] for state in (held, fresh) if ROWS in state]
    held.pop(ROWS, None)
    if key not in held and key not in fresh and rows and sum(part.shape[1] for part in rows) < rows[0].shape[2]:
        held[ROWS] = torch.cat(rows, dim=1)
        return
    overwritten = key in own
    for part in rows:
        held[key] = plus(held.get(key), upper_gram(part), overwritten)
        overwritten = True
    if key in fresh:
        held[key] = plus(held.get(key), fresh[key], overwritten)


def averaged(sums: State, key: str, count: float, dtype: torch.dtype | None) -> State:
    """Σ rrᵀ / count from its sum; rows stay as they are."""
    if ROWS in sums:
        return {ROWS: sums[ROWS]}
    square = sums[key]
    return {key: square.to(dtype or square.dtype) / count if square.ndim == 2 else finished(square, count, dtype)}


def operator_of(state: State, key: str, scale: float) -> Operator:
    """The average in the form it is kept in: LowRank (rows, times `scale`), Diagonal, Dense or Grouped."""
    if ROWS in state and state[ROWS].shape[0] == 1:
        return LowRank(state[ROWS][0], scale)
    if ROWS in state:
        return Grouped(double_gram(state[ROWS]) * scale)
    mean = state[key]
    if mean.ndim == 2:
        return Diagonal(mean.flatten())
    return Dense(mean[0]) if mean.shape[0] == 1 else Grouped(mean)
