"""Make a dataset's inputs what a model's first layer takes: flat or shaped, float or token; every change is noted."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from curvlab.data.dataset import Dataset
from curvlab.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor, nn

Kind = TypeVar("Kind", bound=Dataset)


def fit(dataset: Kind, module: nn.Module) -> Kind:
    """`dataset` as the first layer of `module` takes it; what needs no change, or is not understood, stays.

    Embedding first and x of shape (n,) or (n, s): whole numbers become token ids, checked against the rows there are.
    A network that declares whole numbers (`whole_inputs`, as graphs from files do) gets them as they are. Any other:
    uint8 x becomes x/255, other whole numbers become floats. Linear first: (n, ...) is flattened to (n, d) when
    that has `in_features` and the last axis has not. Convolution first: a missing channel axis is added,
    channels-last is turned into channels-first.

    Raises:
        DataError: x has a token that the embedding has no row for.
    """
    from torch import nn

    first = first_layer(module)
    whole = bool(getattr(module, "whole_inputs", False)) and not dataset.x.is_floating_point()
    x, notes = (dataset.x, list[str]()) if whole else _typed(dataset.x, first)
    if isinstance(first, nn.Linear):
        shaped, note = _flat(x, first.in_features)
    elif isinstance(first, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        shaped, note = _channels(x, first.in_channels, len(first.kernel_size))
    else:
        shaped, note = x, None
    return replace(dataset, x=shaped, notes=(*dataset.notes, *notes, *([note] if note else [])))


def input_shape(module: nn.Module) -> tuple[int, ...] | None:
    """The shape of one input where the network declares it (`example_shape`) or its first layer alone says it (Linear:
    its features); None otherwise."""
    from torch import nn

    declared: tuple[int, ...] | None = getattr(module, "example_shape", None)
    if declared is not None:
        return declared
    first = first_layer(module)
    return (first.in_features,) if isinstance(first, nn.Linear) else None


def first_layer(module: nn.Module) -> nn.Module | None:
    """The first Linear, convolution or Embedding, in the order that modules were registered."""
    from torch import nn

    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding)
    return next((part for part in module.modules() if isinstance(part, kinds)), None)


def _typed(x: Tensor, first: nn.Module | None) -> tuple[Tensor, list[str]]:
    import torch
    from torch import nn

    if isinstance(first, nn.Embedding) and x.ndim <= 2 and bool((x == x.to(torch.int64)).all()):
        tokens = x.to(torch.int64)
        low, high = int(tokens.min()), int(tokens.max())
        if low < 0 or high >= first.num_embeddings:
            found = f"the inputs hold token ids from {low} to {high}"
            why = f"the embedding has rows 0 to {first.num_embeddings - 1}"
            raise DataError(found, why, "use the model's own tokenizer")
        return tokens, ["inputs turned into token ids"] if x.is_floating_point() else []
    if x.dtype == torch.uint8:
        return x.float() / 255, ["uint8 inputs scaled to [0, 1]"]
    if not x.is_floating_point():
        return x.float(), ["whole-number inputs turned into floats, not scaled"]
    return x, []


def _flat(x: Tensor, features: int) -> tuple[Tensor, str | None]:
    if x.ndim > 2 and x.shape[-1] != features and x[0].numel() == features:
        return x.flatten(1), f"inputs of shape {_size(x)} flattened to {features}"
    return x, None


def _channels(x: Tensor, channels: int, axes: int) -> tuple[Tensor, str | None]:
    """(n, *axes) → (n, 1, *axes); (n, *axes, c) → (n, c, *axes) when only the last axis is as long as the channels."""
    if x.ndim == axes + 1 and channels == 1:
        return x[:, None], f"a channel axis added to inputs of shape {_size(x)}"
    if x.ndim == axes + 2 and x.shape[1] != channels and x.shape[-1] == channels:
        return x.movedim(-1, 1).contiguous(), f"channels moved first in inputs of shape {_size(x)}"
    return x, None


def _size(x: Tensor) -> str:
    return "x".join(map(str, x.shape[1:]))
