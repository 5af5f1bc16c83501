"""Eigenvalues of diag(f) − vvᵀ by counting, in O(d) a count: the covariance of one-hot features is such a matrix."""

from __future__ import annotations

from torch import Tensor

from curvlab.shapes import Float


def count_below(values: Float[Tensor, " d"], vector: Float[Tensor, " d"], bound: float, slack: float = 0.0) -> int:
    """#{λ < t} = #{f_j < t} + [1 − Σ v_j²/(f_j − t) < 0] of diag(f) − vvᵀ.

    [[diag(f) − tI, v], [vᵀ, 1]] has two Schur complements, diag(f) − vvᵀ − tI (and 1), and 1 − vᵀ(diag(f) − tI)⁻¹v
    (and diag(f) − tI); by Sylvester's law of inertia both count the same negative eigenvalues.

    Args:
        values: f.
        vector: v.
        bound: t.
        slack: the bracket counts as negative up to this, its own rounding.
    """
    gaps = values - bound
    bracket = 1 - (vector.square() / gaps).nansum()  # 0/0 is an entry without a part in vvᵀ
    return int((gaps < 0).sum()) + int(bracket.item() <= slack)


def rank_one_extremes(
    values: Float[Tensor, " d"], vector: Float[Tensor, " d"], floor: float, slack: float
) -> tuple[int, float, float]:
    """The number of eigenvalues of diag(f) − vvᵀ under `floor`, the least that is not, and the largest.

    The eigenvalues lie between neighbours of the sorted f, λ_0 ≤ f_0 ≤ λ_1 ≤ f_1 ≤ …, and are found by bisection of
    `count_below` to full precision.

    Args:
        values: f ≥ 0, not empty.
        vector: v.
        floor: positive.
        slack: as in `count_below`, at `floor`.

    Returns:
        (d, 0, 0) when all are under it.
    """
    f, order = values.sort()
    v = vector[order]
    last = len(f) - 1
    below = count_below(f, v, floor, slack)
    if below > last:
        return below, 0.0, 0.0
    least, most = (_eigenvalue(f, v, place, floor) for place in (below, last))
    return below, least, most


def _eigenvalue(values: Float[Tensor, " d"], vector: Float[Tensor, " d"], place: int, floor: float) -> float:
    """λ_place, known to be at least `floor`, of sorted values."""
    high = values[place].item()
    low = max(floor, values[place - 1].item()) if place else floor
    while low < (middle := (low + high) / 2) < high:
        if count_below(values, vector, middle) > place:
            high = middle
        else:
            low = middle
    return high
