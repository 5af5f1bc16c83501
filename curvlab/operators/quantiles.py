"""Exact quantiles of all products of several lists, by counting, without forming the products."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from curvlab.operators.eigenvalues import PRODUCT_LIMIT, Factored, outer
from curvlab.shapes import Float, Int

_CHEAP = 2**16  # so few products are sorted sooner than searched
_QUERIES = 2**22  # thresholds divided at once: 32 MiB


def quantiles(lists: Factored, levels: Sequence[float]) -> Float[Tensor, " q"]:
    """x_k + (h − k)(x_{k+1} − x_k), k = ⌊h⌋, h = p(N − 1), of the N products x_0 ≤ … ≤ x_{N−1} (numpy's "linear").

    The order statistics are exact up to the rounding of one product: #{λ_i μ_j ≤ t} = Σ_i #{μ_j ≤ t/λ_i} is found by
    binary search in the sorted μ, and t by bisection on the bits of a double (at most 63 halvings, since the bits of
    non-negative doubles are ordered as they are).

    Args:
        lists: non-negative float64 lists `[g, n_1], [g, n_2], …`, ascending along the last axis
            (`factored_eigenvalues`); N ≥ 1.
        levels: numbers in [0, 1].
    """
    size = lists[0].shape[0] * math.prod(values.shape[1] for values in lists)
    position = torch.tensor(levels, dtype=torch.float64, device=lists[0].device) * (size - 1)
    lower = position.floor().long()
    upper = (lower + 1).clamp(max=size - 1)
    found = order_statistics(lists, torch.cat([lower, upper]))
    return torch.lerp(found[: len(levels)], found[len(levels) :], position - lower)


def order_statistics(lists: Factored, ranks: Int[Tensor, " q"]) -> Float[Tensor, " q"]:
    """x_rank of the ordered products x_0 ≤ x_1 ≤ … for every rank; arguments as in `quantiles`."""
    lists = _fold(lists)
    if len(lists) == 1:
        return lists[0].flatten().sort().values[ranks]
    least, most = 1.0, 1.0
    for values in lists:
        positive = values[values > 0]
        if positive.numel() == 0:
            return ranks.new_zeros(ranks.shape, dtype=torch.float64)
        least, most = least * positive.min().item(), most * positive.max().item()
    # The margins cover the rounding of the products: no positive one is at or under `low`, all are at or under
    # `high`.
    low = torch.full_like(ranks, _bits(least * (1 - 1e-12)))
    high = torch.full_like(ranks, _bits(most * (1 + 1e-12)))
    zeros = _count(lists, _numbers(low))
    while bool((high - low > 1).any()):
        middle = low + (high - low) // 2
        above = _count(lists, _numbers(middle)) > ranks
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return torch.where(ranks < zeros, 0.0, _numbers(high))


def _fold(lists: Factored) -> Factored:
    """The same products from fewer lists, shortest first: join two while that is cheap, or more than two are left."""
    ordered = sorted(lists, key=lambda values: values.shape[1])
    while len(ordered) > 1:
        length = ordered[0].numel() * ordered[1].shape[1]
        if length > max(_CHEAP, ordered[-1].numel()) and (len(ordered) == 2 or length > PRODUCT_LIMIT):
            break
        ordered = sorted([outer(*ordered[:2]), *ordered[2:]], key=lambda values: values.shape[1])
    # Only the last list is searched in, so only it must be sorted.
    return (*ordered[:-1], ordered[-1].sort(dim=1).values)


def _count(lists: Factored, thresholds: Float[Tensor, " q"]) -> Int[Tensor, " q"]:
    """How many products are at or under each positive threshold."""
    return _count_groups(lists, thresholds.expand(lists[0].shape[0], -1)).sum(0)


def _count_groups(lists: Factored, thresholds: Float[Tensor, "g q"]) -> Int[Tensor, "g q"]:
    if len(lists) == 1:
        return torch.searchsorted(lists[0], thresholds.contiguous(), right=True)
    total = torch.zeros(thresholds.shape, dtype=torch.int64, device=thresholds.device)
    step = max(1, _QUERIES // thresholds.numel())
    for start in range(0, lists[0].shape[1], step):
        # Infinite where the entry is 0: every product with it is under the threshold.
        quotients = thresholds[:, :, None] / lists[0][:, None, start : start + step]
        total += _count_groups(lists[1:], quotients.flatten(1)).view(*quotients.shape).sum(2)
    return total


def _bits(number: float) -> int:
    return int(torch.tensor(max(number, 5e-324), dtype=torch.float64).view(torch.int64))


def _numbers(bits: Int[Tensor, " q"]) -> Float[Tensor, " q"]:
    return bits.view(torch.float64)
