"""The metric of a layer's inputs, M = E[āāᵀ] = [[E[aaᵀ], μ], [μᵀ, 1]], from the moments of a (LNB, eq. 12)."""

from __future__ import annotations

import torch
from torch import Tensor

from curvlab.errors import MemoryBudgetError
from curvlab.linalg.float64 import double, double_gram
from curvlab.operators.matrix import matrix
from curvlab.operators.operator import Dense, Grouped, LowRank, Operator
from curvlab.operators.sketch import Sketch
from curvlab.shapes import Float
from curvlab.statistics.append_one import append_one

WRITTEN = 32_768
"""The most rows of a matrix that is written out from a few of them: 8 GiB."""


def metric(second: Operator, mean: Float[Tensor, "*g d"], biased: bool) -> Operator:
    """M = E[āāᵀ] = [[E[aaᵀ], μ], [μᵀ, 1]] with a bias (LNB, eq. 12), E[aaᵀ] without, in the cheapest form.

    Args:
        second: E[aaᵀ] of the features a, without the 1; the rows of a `LowRank` are the features themselves.
        mean: μ `[d]`, or `[g, d]` for groups.
        biased: whether a 1 is appended to the features.

    Raises:
        MemoryBudgetError: a large diagonal second moment with a bias.
    """
    if not biased:
        return second
    if isinstance(second, LowRank) and are_features(second):
        ones = second.rows.new_ones(second.rows.shape[0], 1)
        return LowRank(torch.cat([second.rows, ones], dim=1), second.scale)
    if isinstance(second, Sketch) and second.ones is not None:
        rows = torch.cat([second.rows, second.ones[:, None]], dim=1)
        energy = torch.cat([second.energy, second.energy.new_full((1,), 1 / second.scale)])
        return Sketch(rows, second.scale, second.lost, energy)
    groups = stack(second)
    joined = append_one(groups, double(mean).reshape(groups.shape[:2]))
    return Grouped(joined) if isinstance(second, Grouped) else Dense(joined[0])


def are_features(operator: LowRank) -> bool:
    """Whether the operator is the mean over its rows; other rows say nothing of the mean."""
    return not isinstance(operator, Sketch) and abs(operator.scale * operator.rows.shape[0] - 1) < 1e-12


def stack(operator: Operator) -> Float[Tensor, "g d d"]:
    """The matrices of all groups in float64; of what has no groups, one."""
    if isinstance(operator, LowRank):
        if operator.size > WRITTEN:
            raise MemoryBudgetError(
                f"a matrix of {operator.size:,} rows needs {8 * operator.size**2 / 2**30:.1f} GiB written out",
                f"it is kept as {len(operator.rows):,} rows",
                "use the operator's own functions",
            )
        scale = double(operator.rows[:0]).new_full((1,), operator.scale**0.5)
        return double_gram(operator.rows[None], scale)
    return double(operator.stack) if isinstance(operator, Grouped) else matrix(operator)[None]
