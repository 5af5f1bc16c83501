"""Σ rrᵀ kept as its rows r while those are fewer than its columns: less memory, and its eigenvalues from less work.

Sums and averages hold, under a name of the recipe's own, the matrix `[g, d, d]` or its diagonal `[g, d]`, or else under
`rows_of` that name the rows `[g, r, d]`.
"""

from __future__ import annotations

from collections.abc import Container

import torch
from torch import Tensor

from curvlab.curvatures.curvature import State, plus
from curvlab.linalg.float64 import double_gram
from curvlab.linalg.gram import finished, upper_gram
from curvlab.operators.operator import Dense, Diagonal, Grouped, LowRank, Operator


def rows_of(key: str) -> str:
    """What the rows are called that stand for the matrix `key`."""
    return f"{key} rows"


def key_of(name: str) -> str:
    """What the matrix is called that `name` stands for: itself, or its rows."""
    return name.removesuffix(rows_of(""))


def rows_or_square(key: str, rows: Tensor) -> State:
    """The rows while they are fewer than their columns, else their product, of which the upper triangle counts."""
    return {rows_of(key): rows} if rows.shape[-2] < rows.shape[-1] else {key: upper_gram(rows)}


def add_rows_or_square(held: State, fresh: State, key: str, own: Container[str]) -> None:
    """Add the sum of one more batch to `held`, as `Curvature.add` does; rows are multiplied out once they are not fewer
    than d."""
    name = rows_of(key)
    rows = [state[name] for state in (held, fresh) if name in state]
    held.pop(name, None)
    if key not in held and key not in fresh and rows and sum(part.shape[-2] for part in rows) < rows[0].shape[-1]:
        held[name] = torch.cat(rows, dim=-2)
        return
    overwritten = key in own
    for part in rows:
        held[key] = plus(held.get(key), upper_gram(part), overwritten)
        overwritten = True
    if key in fresh:
        held[key] = plus(held.get(key), fresh[key], overwritten)


def averaged(sums: State, key: str, count: float, dtype: torch.dtype | None) -> State:
    """Σ rrᵀ / count from its sum; rows are divided by √count."""
    if (name := rows_of(key)) in sums:
        return {name: sums[name] / count**0.5}
    square = sums[key]
    return {key: square.to(dtype or square.dtype) / count if square.ndim == 2 else finished(square, count, dtype)}


def operator_of(state: State, key: str, scale: float = 1.0) -> Operator:
    """The average in the form it is kept in: LowRank (rows, times `scale`), Diagonal, Dense or Grouped."""
    if (name := rows_of(key)) in state:
        rows = state[name]
        return LowRank(rows[0], scale) if rows.shape[0] == 1 else Grouped(double_gram(rows) * scale)
    return of_groups(state[key])


def of_groups(matrices: Tensor) -> Operator:
    """The operator of one matrix per group `[g, d, d]`, or of their diagonals `[g, d]`."""
    if matrices.ndim == 2:
        return Diagonal(matrices.flatten())
    return Dense(matrices[0]) if matrices.shape[0] == 1 else Grouped(matrices)
