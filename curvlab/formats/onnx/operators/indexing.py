"""Indexing: elements chosen by position."""

from __future__ import annotations

import torch
from torch import Tensor

from curvlab.formats.onnx.operators.table import Result, axis_of, integers, number, operator


def from_front(index: Tensor, size: int) -> Tensor:
    """Negative positions count from the end."""
    index = index.long()
    return torch.where(index < 0, index + size, index)


@operator("Gather")
def gather(x: Tensor, index: Tensor, *, axis: int = 0) -> Tensor:
    """Slices of x along the axis."""
    axis = axis_of(axis, x.ndim)
    chosen = x.index_select(axis, from_front(index, x.shape[axis]).reshape(-1))
    return chosen.reshape([*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]])


@operator("GatherElements")
def gather_elements(x: Tensor, index: Tensor, *, axis: int = 0) -> Tensor:
    """y[…, i, …] = x[…, index[…, i, …], …]."""
    return torch.gather(x, axis, from_front(index, x.shape[axis]))


@operator("GatherND")
def gather_nd(x: Tensor, index: Tensor, *, batch_dims: int = 0) -> Tensor:
    """y[b…, …] = x[b…, index[b…, …, :]]."""
    lead = x.shape[:batch_dims]
    batches = max(1, lead.numel())
    rows = x.reshape(batches, *x.shape[batch_dims:])
    where = index.reshape(batches, -1, index.shape[-1])
    own = torch.arange(batches)[:, None].expand(where.shape[:2])
    chosen = rows[(own, *(where[..., k] for k in range(where.shape[-1])))]
    return chosen.reshape([*index.shape[:-1], *x.shape[batch_dims + index.shape[-1] :]])


@operator("Slice", since=10)
def slice_by_inputs(
    x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None
) -> Tensor:
    """x[start : end : step] along the axes."""
    return _sliced(
        x,
        integers(starts),
        integers(ends),
        None if axes is None else integers(axes),
        None if steps is None else integers(steps),
    )


@operator("Slice", before=10)
def slice_by_attributes(x: Tensor, *, starts: list[int], ends: list[int], axes: list[int] | None = None) -> Tensor:
    """The numbers as attributes."""
    return _sliced(x, starts, ends, axes, None)


def _sliced(x: Tensor, starts: list[int], ends: list[int], axes: list[int] | None, steps: list[int] | None) -> Tensor:
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis = axis_of(axes[i], x.ndim) if axes is not None else i
        step = steps[i] if steps is not None else 1
        span = (
            range(*slice(start, end, step).indices(x.shape[axis])) if step > 0 else _backward(start, end, step, x, axis)
        )
        if step > 0:
            x = x[(slice(None),) * axis + (slice(span.start, max(span.start, span.stop), step),)]
        else:  # torch has no negative steps
            x = x.index_select(axis, torch.tensor(list(span), dtype=torch.int64))
    return x


def _backward(start: int, end: int, step: int, x: Tensor, axis: int) -> range:
    """Python's rule; an end far below 0 means that the first element belongs to the slice."""
    size = x.shape[axis]
    return range(*slice(start, None if end < -size else end, step).indices(size))


@operator("NonZero")
def non_zero(x: Tensor) -> Tensor:
    """Positions of all elements that are not 0, one column each."""
    return torch.nonzero(x).T


@operator("Compress")
def compress(x: Tensor, condition: Tensor, *, axis: int | None = None) -> Tensor:
    """The slices whose condition holds."""
    x, axis = (x.reshape(-1), 0) if axis is None else (x, axis)
    kept = torch.nonzero(condition)[:, 0]
    return x.index_select(axis, kept)


@operator("TopK", since=10)
def top_k(x: Tensor, k: Tensor, *, axis: int = -1, largest: int = 1, sorted: int = 1) -> Result:
    """The k largest (or smallest) along the axis and their positions; of equal ones the first."""
    return _top_k(x, int(number(k)), axis, bool(largest))


@operator("TopK", before=10)
def top_k_by_attribute(x: Tensor, *, k: int, axis: int = -1) -> Result:
    """k as an attribute."""
    return _top_k(x, k, axis, True)


def _top_k(x: Tensor, k: int, axis: int, largest: bool) -> Result:
    wide = x.to({torch.uint16: torch.int32, torch.uint32: torch.int64}.get(x.dtype, x.dtype))
    if x.dtype == torch.uint64:
        wide = x.view(torch.int64) ^ torch.iinfo(torch.int64).min  # signed numbers of the same order
    order = torch.sort(wide, dim=axis, descending=largest, stable=True).indices.narrow(axis, 0, k)
    return torch.take_along_dim(wide, order, axis).to(x.dtype) if x.dtype != torch.uint64 else _picked(
        x, order, axis
    ), order


def _picked(x: Tensor, order: Tensor, axis: int) -> Tensor:
    return torch.gather(x.view(torch.int64), axis, order).view(x.dtype)


@operator("Unique")
def unique(x: Tensor, *, axis: int | None = None, sorted: int = 1) -> Result:
    """Distinct elements (or slices), where each first stood, which one each element is, and how often."""
    values, inverse, counts = torch.unique(x, sorted=True, return_inverse=True, return_counts=True, dim=axis)
    inverse = inverse.reshape(-1)
    first = torch.full((len(counts),), inverse.numel()).scatter_reduce(
        0, inverse, torch.arange(inverse.numel()), "amin"
    )
    if not sorted:  # in the order in which they appear
        order = torch.argsort(first)
        values = values.index_select(0 if axis is None else axis, order)
        inverse, counts, first = torch.argsort(order)[inverse], counts[order], first[order]
    return values, first, inverse, counts


@operator("OneHot")
def one_hot(index: Tensor, depth: Tensor, values: Tensor, *, axis: int = -1) -> Tensor:
    """values[1] at the index along a new axis, else values[0]; an index out of range has none."""
    size = int(number(depth))
    places = torch.arange(size, dtype=torch.int64)
    wanted = from_front(index, size).unsqueeze(axis_of(axis, index.ndim + 1))
    shape = [1] * wanted.ndim
    shape[axis] = size
    return torch.where(wanted == places.reshape(shape), values[1], values[0])


@operator("ReverseSequence")
def reverse_sequence(x: Tensor, lengths: Tensor, *, batch_axis: int = 1, time_axis: int = 0) -> Tensor:
    """The first so many steps of each example backwards."""
    time = torch.arange(x.shape[time_axis])[:, None]
    steps = torch.where(time < lengths, lengths - 1 - time, time)
    if time_axis > batch_axis:
        steps = steps.T
    return torch.gather(x, time_axis, steps.reshape(*steps.shape, *(1,) * (x.ndim - 2)).expand(x.shape).long())


@operator("Trilu")
def triangle(x: Tensor, k: Tensor | None = None, *, upper: int = 1) -> Tensor:
    """Zeros below (or above) the k-th diagonal."""
    diagonal = 0 if k is None else int(number(k))
    return torch.triu(x, diagonal) if upper else torch.tril(x, diagonal)
