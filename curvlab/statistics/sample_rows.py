"""The rows of a sample in the type that they came in: half of what they take in float64, and exact."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from curvlab.capture.sample import Call, Sample
from curvlab.layers.embedding import EmbeddingLayer
from curvlab.shapes import Float


def gradient_rows(sample: Sample) -> Float[Tensor, "g r o"]:
    """g of the positions that count, in the network's own type, float32 at least."""
    own = in_own_type(sample, [call.g for call in sample.calls])
    return own.counted(own.output_gradients)


def gradient_sums(sample: Sample) -> Float[Tensor, "g n o"]:
    """Σ_t g[n,t], summed in the sample's type."""
    own = in_own_type(sample, [call.g for call in sample.calls])
    return own.output_gradients.sum(2, dtype=sample.dtype)


def feature_rows(sample: Sample) -> Float[Tensor, "g r i"]:
    """a of the positions that count, in the network's own type, float32 at least, as a copy: the network may overwrite
    what it has used."""
    own = in_own_type(sample, [call.x for call in sample.calls])
    rows = own.counted(own.features)
    inputs = [call.x for call in sample.calls if call.x is not None]
    return rows.clone() if any(torch._C._is_alias_of(rows, x) for x in inputs) else rows  # type: ignore[attr-defined]


def one_hot(sample: Sample) -> bool:
    """Whether inputs are one-hot: their second moment is a diagonal, smaller than any of the rows."""
    return isinstance(sample.layer, EmbeddingLayer)


def in_own_type(sample: Sample, tensors: Sequence[Tensor | None]) -> Sample:
    """The same calls, their products in the type of these tensors where that is the shorter one."""
    types = [one.dtype for one in tensors if one is not None and one.is_floating_point()]
    dtype = reduce(torch.promote_types, types, torch.float32)
    return Sample(sample.calls, sample.examples, dtype) if dtype.itemsize < sample.dtype.itemsize else sample


def indices(call: Call, examples: int) -> tuple[Tensor, Tensor | None]:
    """Places of the ones in one-hot features `(n, t)`, and which of them count; None for all."""
    assert call.x is not None
    assert isinstance(call.layer, EmbeddingLayer)
    x = (call.x if call.axis == 0 else call.x.transpose(0, call.axis)).reshape(examples, -1).long()
    counted = call.mask
    if call.layer.padding is not None:
        real = x != call.layer.padding
        counted = real if counted is None else counted & real
    return x, counted
