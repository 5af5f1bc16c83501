"""Exact quantiles of all products of several lists, by counting, without forming the products."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from curvlab.operators.eigenvalues import PRODUCT_LIMIT, Factored, outer
from curvlab.shapes import Float, Int

CHEAP = 2**16  # so few products are sorted sooner than searched
QUERIES = 2**21  # thresholds divided at once: 16 MiB


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
    position = torch.tensor(levels, dtype=torch.float64, device=lists[0].device) * (_length(lists) - 1)
    ranks = position.floor().long()
    return torch.lerp(*order_statistics(lists, ranks), position - ranks)


def order_statistics(lists: Factored, ranks: Int[Tensor, " q"]) -> tuple[Float[Tensor, " q"], Float[Tensor, " q"]]:
    """x_k and x_{k+1} of the ordered products x_0 ≤ x_1 ≤ … for every rank k; x_k twice for the last.

    Arguments as in `quantiles`.
    """
    last = _length(lists) - 1
    # Groups with a factor that is 0, and entries that are 0 in every group, make nothing but zeros: no need to search.
    alive = torch.stack([(values > 0).any(1) for values in lists]).all(0)
    lists = tuple(values[alive][:, (values[alive] > 0).any(0)] for values in lists)
    zeros = last + 1 - _length(lists)
    if zeros > last:
        return (lists[0].new_zeros(ranks.shape),) * 2
    lists = _fold(lists)
    if len(lists) == 1:
        ordered = lists[0].flatten().sort().values
        both = torch.stack([ranks, (ranks + 1).clamp(max=last)]) - zeros
        first, second = torch.where(both < 0, 0.0, ordered[both.clamp(min=0)])
        return first, second

    def reached(bits: Int[Tensor, " q"]) -> Int[Tensor, " q"]:
        return zeros + _count(lists, _numbers(bits, lists)).sum(0)

    # The margins cover the rounding of products: no positive one is at or under `least`, all are at or under `most`.
    least = torch.full_like(ranks, _bits(math.prod(values[values > 0].min().item() for values in lists) * (1 - 1e-12)))
    most = torch.full_like(ranks, _bits(math.prod(values.max().item() for values in lists) * (1 + 1e-12)))
    low, high = least, most
    while bool((high - low > 1).any()):
        middle = low + (high - low) // 2
        enough = reached(middle) > ranks
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    # What is at or under `least` is 0, and what comes after the last 0 is the least product above it.
    zero = reached(least) > ranks
    bits = torch.where(zero, least, high)
    found = torch.where(zero, 0.0, bits.view(torch.float64))
    repeated = (reached(bits) > ranks + 1) | (ranks == last)
    return found, torch.where(repeated, found, _next(lists, _numbers(bits, lists)).amin(0))


def _length(lists: Factored) -> int:
    return lists[0].shape[0] * math.prod(values.shape[1] for values in lists)


def _fold(lists: Factored) -> Factored:
    """The same products from fewer lists, shortest first: join two while that is cheap, or more than two are left."""
    ordered = sorted(lists, key=lambda values: values.shape[1])
    while len(ordered) > 1:
        length = ordered[0].numel() * ordered[1].shape[1]
        if length > max(CHEAP, ordered[-1].numel()) and (len(ordered) == 2 or length > PRODUCT_LIMIT):
            break
        ordered = sorted([outer(*ordered[:2]), *ordered[2:]], key=lambda values: values.shape[1])
    # Only the last list is searched in, so only it must be sorted.
    return (*ordered[:-1], ordered[-1].sort(dim=1).values)


def _count(lists: Factored, thresholds: Float[Tensor, "g q"]) -> Int[Tensor, "g q"]:
    """How many products of each group are at or under each positive threshold."""
    if len(lists) == 1:
        return torch.searchsorted(lists[0], thresholds, right=True)
    total = torch.zeros(thresholds.shape, dtype=torch.int64, device=thresholds.device)
    for _, quotients in _quotients(lists[0], thresholds):
        total += _count(lists[1:], quotients.flatten(1)).view(quotients.shape).sum(2)
    return total


def _next(lists: Factored, thresholds: Float[Tensor, "g q"]) -> Float[Tensor, "g q"]:
    """The least product of each group above each positive threshold, or infinity."""
    if len(lists) == 1:
        padded = torch.cat([lists[0], torch.full_like(lists[0][:, :1], math.inf)], dim=1)
        return padded.gather(1, torch.searchsorted(lists[0], thresholds, right=True))
    least = torch.full_like(thresholds, math.inf)
    for entries, quotients in _quotients(lists[0], thresholds):
        above = entries * _next(lists[1:], quotients.flatten(1)).view(quotients.shape)
        least = torch.minimum(least, above.where(entries > 0, math.inf).amin(2))
    return least


def _quotients(
    values: Float[Tensor, "g n"], thresholds: Float[Tensor, "g q"]
) -> Iterator[tuple[Float[Tensor, "g 1 c"], Float[Tensor, "g q c"]]]:
    """Some of the values and threshold/value for them; infinite for 0, whose products are under every threshold."""
    step = max(1, QUERIES // thresholds.numel())
    for start in range(0, values.shape[1], step):
        entries = values[:, None, start : start + step]
        yield entries, thresholds[:, :, None] / entries


def _bits(number: float) -> int:
    return int(torch.tensor(max(number, 5e-324), dtype=torch.float64).view(torch.int64))


def _numbers(bits: Int[Tensor, " q"], lists: Factored) -> Float[Tensor, "g q"]:
    """The doubles of these bits, as thresholds of every group."""
    return bits.view(torch.float64).expand(lists[0].shape[0], -1).contiguous()
