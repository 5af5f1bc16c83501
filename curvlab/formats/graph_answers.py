"""Whether a network that was rebuilt from a graph answers as the graph does: only then is it used."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from curvlab.quoting import reason

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
    """Why the graph works for batches of one size only; None where a larger one answers as its parts do."""
    tensors = [value for value in pytree.tree_leaves(inputs) if isinstance(value, Tensor) and value.ndim]
    if not tensors:
        return "it takes no tensors"
    size = tensors[0].shape[0]
    more = other_examples(inputs, size)
    try:
        joined = module(*pytree.tree_leaves(interleaved(inputs, more, size)))
    except Exception as error:
        why = f"it was exported for batches of {size} and fails on others ({reason(error)})"
        return f"{why}: export it with dynamic_shapes"
    parts = [original(*part[0], **part[1]) for part in (inputs, more)]
    if not joined_from(joined, parts[0], parts[1], size):
        return f"it was exported for batches of {size} and answers others wrongly: export it with dynamic_shapes"
    return None


def other_examples(inputs: Any, size: int) -> Any:
    """As many examples again, all different: a network that mixes examples would not notice that some are repeated.

    Args:
        inputs: tensors, and containers of them; those without `size` examples on the first axis stay.
        size: examples.
    """
    generator = torch.Generator().manual_seed(1)

    def other(value: Any) -> Any:
        if not _batched(value, size) or not value.numel():
            return value
        if value.is_floating_point():
            scale = value.detach().double().square().mean().sqrt().to("cpu")
            return (scale * torch.randn(value.shape, generator=generator)).to(value.device, value.dtype)
        places = torch.randint(value.numel(), value.shape, generator=generator).to(value.device)
        return value.reshape(-1)[places]  # whole numbers that the network takes for sure

    return pytree.tree_map(other, inputs)


def interleaved(some: Any, more: Any, size: int) -> Any:
    """Both batches in one, rolled on by one example: groups of neighbours are then not those of the parts."""
    return pytree.tree_map(lambda a, b: torch.cat([a, b]).roll(1, 0) if _batched(a, size) else a, some, more)


def joined_from(joined: Any, some: Any, more: Any, size: int) -> bool:
    """Whether answers to `interleaved` inputs are those to its parts; what has no axis of examples is not compared."""
    leaves = [pytree.tree_leaves(answers) for answers in (joined, some, more)]
    if len({*map(len, leaves)}) != 1:
        return False
    return all(
        close(found, torch.cat([a, b]).roll(1, 0)) for found, a, b in zip(*leaves, strict=True) if _batched(a, size)
    )


def _batched(value: Any, size: int) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0 and value.shape[0] == size


def close(found: Any, wanted: Any) -> bool:
    """Whether two answers are the same tensors, up to rounding; infinities and NaN stand at the same places."""
    ours, theirs = pytree.tree_leaves(found), pytree.tree_leaves(wanted)
    return len(ours) == len(theirs) and all(map(_close, ours, theirs))


def _close(found: Any, wanted: Any) -> bool:
    if not isinstance(wanted, Tensor) or not isinstance(found, Tensor):
        return bool(found == wanted)
    if found.shape != wanted.shape:
        return False
    if not wanted.is_floating_point():
        return torch.equal(found, wanted)
    # allclose takes only equal infinities as close; they must not widen the tolerance for what is finite.
    finite = wanted[wanted.isfinite()]
    largest = float(finite.abs().max()) if finite.numel() else 0.0
    return torch.allclose(found.to(wanted.dtype), wanted, rtol=0, atol=TOLERANCE * max(largest, 1e-6), equal_nan=True)
