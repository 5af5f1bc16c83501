"""Frequent directions: a few rows B that stand for many rows A, with 0 ≤ λ_i(AᵀA) − λ_i(BᵀB) ≤ δ for every i (Ghashami,
Liberty, Phillips & Woodruff 2016, "Frequent directions: simple and deterministic matrix sketching").

Nothing of the width squared is formed: a step is an eigendecomposition of the rows' Gram matrix.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from curvlab.linalg.eigh import safe_eigh
from curvlab.linalg.float64 import CHUNK, double, double_gram, pieces
from curvlab.shapes import Float


class Directions(NamedTuple):
    """Rows B with 0 ≼ AᵀA − BᵀB ≼ lost·I.

    Attributes:
        rows: B, float64.
        lost: Σ of what every step has taken from each direction. It is known, and with steps of `size` rows it is at
            most min_k<size ‖A − A_k‖_F² / (size − k), A_k the best approximation of rank k.
    """

    rows: Float[Tensor, "r d"]
    lost: float


def absorbed(held: Directions, fresh: Float[Tensor, "r d"], size: int) -> Directions:
    """`held` with more rows: at most 2·size in all.

    Rows are taken until there are 2·size of them, and then brought down to `size` at once, so that the work for a row
    is that of a few products with `size` others.

    Args:
        held: what there is so far; of A's rows themselves with lost = 0.
        fresh: more rows of A, of any floating dtype.
        size: ℓ ≥ 1.

    Returns:
        A new tensor of rows, or that of `held` where no row is fresh.
    """
    rows, lost, start = held.rows, held.lost, 0
    while start < len(fresh) or len(rows) > 2 * size:
        if len(rows) >= 2 * size:
            rows, taken = _shrunk(rows, size)
            lost += taken
        more = double(fresh[start : start + max(0, 2 * size - len(rows))])
        start += len(more)
        rows = torch.cat([rows, more])
    return Directions(rows, lost)


def _shrunk(rows: Float[Tensor, "r d"], size: int) -> tuple[Float[Tensor, "l d"], float]:
    """√(λ_i − λ_{size+1}) v_i of the `size` largest eigenvalues λ_i of rowsᵀrows, and λ_{size+1}."""
    found = safe_eigh(double_gram(rows.T[None]))
    values, vectors = found.values[0], found.vectors[0]
    if not bool(found.ok):  # not a number somewhere: whoever looks at the spectrum is told
        return rows[:size] * torch.nan, 0.0
    least = max(values[-size - 1].item(), 0.0)
    kept = values[-size:]
    # v_i = rowsᵀ u_i / √λ_i; directions no larger than what is taken off are gone.
    weights = torch.where(kept > least, ((kept - least) / kept.where(kept > 0, 1.0)).clamp(min=0).sqrt(), 0.0)
    mix = (vectors[:, -size:] * weights).mT
    made = rows.new_empty(size, rows.shape[1], dtype=torch.float64)
    start = 0
    for _, piece in pieces(rows.T[None], max(CHUNK, size * len(rows))):
        made[:, start : start + piece.shape[1]] = mix @ piece[0].mT
        start += piece.shape[1]
    return made, least
