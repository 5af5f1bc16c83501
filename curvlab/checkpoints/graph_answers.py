"""Whether a network that was rebuilt from a graph answers as the graph does: only then is it used."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from curvlab.checkpoints.quoting import reason

TOLERANCE = 1e-4
"""Largest difference of two answers, relative to the largest number in them: rounding of another order of sums."""

Inputs = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of a program."""


def random_inputs(example: Inputs | None) -> Inputs:
    """Inputs of the example's shapes: fresh numbers where they are real, the example's own elsewhere."""
    if example is None:
        raise ValueError("the archive holds no example inputs to check the network with")
    generator = torch.Generator().manual_seed(0)

    def fresh(value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_floating_point():
            return torch.randn(value.shape, generator=generator).to(value.dtype)
        return value

    made: Inputs = pytree.tree_map(fresh, example)
    return made


def agree(module: nn.Module, original: nn.Module, inputs: Inputs) -> bool:
    """Whether the rebuilt network answers these inputs as the program does."""
    return close(module(*pytree.tree_leaves(inputs)), original(*inputs[0], **inputs[1]))


def fixed_batch(module: nn.Module, original: nn.Module, inputs: Inputs) -> str | None:
    """Why the graph works for batches of one size only; None where larger ones answer as their parts do."""
    tensors = [value for value in pytree.tree_leaves(inputs) if isinstance(value, Tensor) and value.ndim]
    if not tensors:
        return "it takes no tensors"
    size = tensors[0].shape[0]

    def repeated(value: Any) -> Any:
        batched = isinstance(value, Tensor) and value.ndim and value.shape[0] == size
        return torch.cat([value, value.flip(0), value]) if batched else value

    def flipped(value: Any) -> Any:
        return value.flip(0) if isinstance(value, Tensor) and value.ndim and value.shape[0] == size else value

    several, other = pytree.tree_map(repeated, inputs), pytree.tree_map(flipped, inputs)
    try:
        together = pytree.tree_leaves(module(*pytree.tree_leaves(several)))
    except Exception as error:
        why = f"it was exported for batches of {size} and fails on others ({reason(error)})"
        return f"{why}: export it with dynamic_shapes"
    parts = [pytree.tree_leaves(original(*part[0], **part[1])) for part in (inputs, other, inputs)]
    for place, joined in enumerate(together):
        one = [part[place] for part in parts]
        if isinstance(joined, Tensor) and one[0].ndim and one[0].shape[0] == size and not close(joined, torch.cat(one)):
            return f"it was exported for batches of {size} and answers others wrongly: export it with dynamic_shapes"
    return None


def close(found: Any, wanted: Any) -> bool:
    """Whether two answers are the same tensors, up to rounding."""
    ours, theirs = pytree.tree_leaves(found), pytree.tree_leaves(wanted)
    return len(ours) == len(theirs) and all(map(_close, ours, theirs))


def _close(found: Any, wanted: Any) -> bool:
    if not isinstance(wanted, Tensor) or not isinstance(found, Tensor):
        return bool(found == wanted)
    if found.shape != wanted.shape:
        return False
    if not wanted.is_floating_point():
        return torch.equal(found, wanted)
    largest = float(wanted.abs().nan_to_num().max()) if wanted.numel() else 0.0
    return torch.allclose(found.to(wanted.dtype), wanted, rtol=0, atol=TOLERANCE * max(largest, 1e-6), equal_nan=True)
