"""`by_size`: a function of stacks of matrices, called once for all stacks of one size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from curvlab.shapes import Float


def by_size(
    stacks: Sequence[Float[Tensor, "_ _ _"]], function: Callable[[Tensor], Sequence[Tensor]]
) -> list[tuple[Tensor, ...]]:
    """[function(stack) for stack in stacks], with one call for all stacks of equal size, dtype and device.

    A device works on a batch of small matrices nearly as fast as on one of them.

    Args:
        stacks: `[b, d, d]`, with different b and d.
        function: `[n, d, d]` to one or more tensors with the batch axis n first, matrix by matrix.

    Returns:
        The results of each stack, in the order of the stacks; parts of one tensor where a call was shared.
    """
    alike: dict[tuple[Any, ...], list[int]] = {}
    for i, stack in enumerate(stacks):
        alike.setdefault((stack.shape[-1], stack.dtype, stack.device), []).append(i)
    results: list[tuple[Tensor, ...]] = [()] * len(stacks)
    for members in alike.values():
        batch = stacks[members[0]] if len(members) == 1 else torch.cat([stacks[i] for i in members])
        counts = [len(stacks[i]) for i in members]
        parts = zip(*(torch.split(result, counts) for result in function(batch)), strict=True)
        for i, part in zip(members, parts, strict=True):
            results[i] = part
    return results
