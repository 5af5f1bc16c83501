"""Scattering: a tensor with some of its elements replaced, or combined with others."""

from __future__ import annotations

import torch
from torch import Tensor

from curvlab.formats.onnx.operators.indexing import from_front
from curvlab.formats.onnx.operators.table import UnsupportedOperator, axis_of, operator

_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


@operator("ScatterElements")
def scatter_elements(x: Tensor, index: Tensor, updates: Tensor, *, axis: int = 0, reduction: str = "none") -> Tensor:
    """x[…, index[…, i, …], …] = updates[…, i, …], or combined with what stood there."""
    where = from_front(index, x.shape[axis])
    if reduction == "none":
        return torch.scatter(x, axis, where, updates)
    return torch.scatter_reduce(x, axis, where, updates, _REDUCTIONS[reduction])


@operator("Scatter", before=11)
def scatter(x: Tensor, index: Tensor, updates: Tensor, *, axis: int = 0) -> Tensor:
    """The same under its first name."""
    return scatter_elements(x, index, updates, axis=axis)


@operator("ScatterND")
def scatter_nd(x: Tensor, index: Tensor, updates: Tensor, *, reduction: str = "none") -> Tensor:
    """x[index[…, :]] = updates[…], or combined with what stood there."""
    depth = index.shape[-1]
    inner = x.shape[depth:]
    # Positions in x taken as one row of slices.
    place = torch.zeros(index.shape[:-1], dtype=torch.int64)
    for k in range(depth):
        place = place * x.shape[k] + from_front(index[..., k], x.shape[k])
    rows = x.reshape(-1, max(1, inner.numel()))
    place = place.reshape(-1, 1).expand(-1, rows.shape[1])
    given = updates.reshape(-1, rows.shape[1])
    if reduction == "none":
        return torch.scatter(rows, 0, place, given).reshape(x.shape)
    return torch.scatter_reduce(rows, 0, place, given, _REDUCTIONS[reduction]).reshape(x.shape)


@operator("TensorScatter")
def tensor_scatter(
    past: Tensor, update: Tensor, indices: Tensor | None = None, *, axis: int = -2, mode: str = "linear"
) -> Tensor:
    """A cache of past steps with new ones written at each example's place; a circular one begins again at its end."""
    axis = axis_of(axis, past.ndim)
    steps = torch.arange(update.shape[axis])
    start = torch.zeros(past.shape[0], dtype=torch.int64) if indices is None else indices.long()
    place = start[:, None] + steps
    if mode == "circular":
        place = place % past.shape[axis]
    elif mode != "linear":
        raise UnsupportedOperator(f"operator TensorScatter in the mode {mode!r}", "not supported")
    shape = [1] * past.ndim
    shape[0], shape[axis] = place.shape
    return torch.scatter(past, axis, place.reshape(shape).expand(update.shape), update)
