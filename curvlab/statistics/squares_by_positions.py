"""Σ_n D_n² of a table of embeddings from its positions, D_n = Σ_t l[n,t] r[n,t]ᵀ with l one-hot in some or all uses.

What one-hot rows are never written out: a position adds to one row of the table.
"""

from __future__ import annotations

import torch
from torch import Tensor

from curvlab.shapes import Float
from curvlab.statistics.position_factors import OneHot, Side

CHUNK = 2**24
"""Entries of gradients formed at a time."""


def squares_by_positions(left: Side, right: Side, shape: tuple[int, int], dtype: torch.dtype) -> Float[Tensor, "v d"]:
    """Σ_n (Σ_t l rᵀ)² of all uses of one table.

    Args:
        left: l of every use.
        right: r of every use, none of them one-hot.
        shape: rows v and columns d of the table.
        dtype: of the products.
    """
    dense = [r for r in right if isinstance(r, Tensor)]
    total = dense[0].new_zeros(shape, dtype=dtype)
    hot = [(one, r) for one, r in zip(left, dense, strict=True) if isinstance(one, OneHot)]
    if len(hot) == len(left):
        return _of_tokens(hot, total)
    products = [(one, r) for one, r in zip(left, dense, strict=True) if isinstance(one, Tensor)]
    height = max(1, min(shape[0], CHUNK // max(1, shape[1])))
    for n in range(len(dense[0])):
        for top in range(0, shape[0], height):
            rows = slice(top, min(top + height, shape[0]))
            gradient = torch.stack([one[n, :, rows].to(dtype).mT @ r[n].to(dtype) for one, r in products]).sum(0)
            for one, r in hot:
                here = (one.places[n] >= rows.start) & (one.places[n] < rows.stop)
                if one.counted is not None:
                    here = here & one.counted[n]
                gradient.index_add_(0, one.places[n][here] - rows.start, r[n][here].to(dtype))
            total[rows] += gradient.square_()
    return total


def _of_tokens(hot: list[tuple[OneHot, Tensor]], total: Float[Tensor, "v d"]) -> Float[Tensor, "v d"]:
    """The rows of the tokens of every example alone."""
    size = total.shape[0]
    places = torch.cat([one.places for one, _ in hot], dim=1)
    rows = torch.cat([_counted(one, r, total.dtype) for one, r in hot], dim=1)
    examples = torch.arange(len(places), device=places.device)[:, None]
    keys, token = (examples * size + places).flatten().unique(return_inverse=True)  # type: ignore[no-untyped-call]
    sums = total.new_zeros(len(keys), total.shape[1]).index_add_(0, token, rows.flatten(0, 1))
    return total.index_add_(0, keys % size, sums.square_())


def _counted(one: OneHot, r: Float[Tensor, "n t d"], dtype: torch.dtype) -> Float[Tensor, "n t d"]:
    return r.to(dtype) if one.counted is None else r.to(dtype) * one.counted[..., None].to(dtype)
