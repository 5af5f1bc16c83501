"""What is computed of many weights: small weights of one shape are read ahead and computed together."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from math import prod
from typing import TypeVar

import torch
from torch import Tensor

from curvlab.analyses.layer_rows import LayerRow
from curvlab.linalg.one_thread import one_thread

MOST_ENTRIES = 2**18
"""Numbers that are stacked: 2 MiB of float64. Beyond that, a call of torch costs nothing beside its work."""
MOST_WEIGHTS = 4096

Result = TypeVar("Result")
Compute = Callable[[Sequence[Tensor], int, bool], Sequence[Result]]
"""(weights of one shape, dtype and device; groups; transposed) -> a result for each."""

_Kind = tuple[tuple[int, ...], int, bool, bool]
_Alike = tuple[torch.Size, torch.dtype, torch.device, int, bool]


def in_batches(
    rows: Sequence[LayerRow],
    tensors: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    compute: Compute[Result],
) -> Iterator[Result]:
    """The result of `compute` for every row's main weight, in the order of the rows.

    A weight is read when it is its row's turn, or earlier together with the first of its kind; no weight is kept.

    Args:
        rows: of the report.
        tensors: name -> tensor, read once for each row.
        shapes: name -> shape, known without reading.
        compute: `stacked_statistics`, or what has its arguments.

    Raises:
        Whatever `compute` raises.
    """
    kinds = [(row.shape(shapes), row.groups, row.transposed, row.layer is None) for row in rows]
    waiting: dict[_Kind, deque[int]] = defaultdict(deque)
    for index, kind in enumerate(kinds):
        waiting[kind].append(index)
    known: dict[int, Result] = {}
    for index, kind in enumerate(kinds):
        if index not in known:
            alike, room = waiting[kind], MOST_ENTRIES // max(1, prod(kind[0]))
            batch = [alike.popleft() for _ in range(max(1, min(len(alike), room, MOST_WEIGHTS)))]
            known.update(_together({i: rows[i] for i in batch}, tensors, compute))
        yield known.pop(index)


def _together(
    batch: Mapping[int, LayerRow], tensors: Mapping[str, Tensor], compute: Compute[Result]
) -> Iterator[tuple[int, Result]]:
    alike: dict[_Alike, list[tuple[int, Tensor]]] = defaultdict(list)
    for index, row in batch.items():
        weight, transposed = row.stored(tensors), row.transposed
        if row.layer is not None and transposed:  # stored in an order that only the layer knows
            weight, transposed = row.matrix(tensors), False
        alike[weight.shape, weight.dtype, weight.device, row.groups, transposed].append((index, weight))
    for (*_, groups, transposed), members in alike.items():
        with one_thread() if len(members) > 1 else nullcontext():
            found = compute([weight for _, weight in members], groups, transposed)
        yield from zip((index for index, _ in members), found, strict=True)
