"""Batches of one epoch, in an order that depends on (seed, epoch) alone: a resumed run goes on as if never stopped."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from curvlab.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from curvlab.data.dataset import Dataset


def batches(
    dataset: Dataset, size: int, epoch: int, seed: int, *, last: Literal["keep", "drop"]
) -> Iterator[tuple[Any, Tensor]]:
    """(inputs, y) in batches of `size` examples, each example once, shuffled anew every epoch; see `Dataset.inputs`.

    Args:
        dataset: with targets.
        size: examples per batch.
        epoch: which pass this is, from 0.
        seed: of the whole run.
        last: what becomes of a last batch of fewer than `size` examples.

    Raises:
        DataError: there is no batch to give, or there are no targets.
    """
    if dataset.y is None:
        raise DataError(f"{dataset.source} has no targets", "nothing can be trained on it")
    if size < 1 or (last == "drop" and size > len(dataset)):
        raise DataError(f"batches of {size} cannot be made of {len(dataset)} examples", do="choose another batch size")
    order = permutation(len(dataset), epoch, seed)
    stop = len(dataset) - (len(dataset) % size if last == "drop" else 0)
    return _picked(dataset, dataset.y, [order[start : start + size] for start in range(0, stop, size)])


def permutation(count: int, epoch: int, seed: int) -> Tensor:
    """The places 0 to count − 1 in the order of an epoch: (count,), int64, on the CPU."""
    import torch

    # A hash, since seed + epoch would give run 1 the order that run 0 has an epoch later.
    mixed = int.from_bytes(hashlib.sha256(f"{seed} {epoch}".encode()).digest()[:4], "little")
    return torch.randperm(count, generator=torch.Generator().manual_seed(mixed))


def _picked(dataset: Dataset, y: Tensor, batches: Sequence[Tensor]) -> Iterator[tuple[Any, Tensor]]:
    for rows in batches:
        places = rows.to(y.device)
        yield dataset.inputs(places), y[places]
