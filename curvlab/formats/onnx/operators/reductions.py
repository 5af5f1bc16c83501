"""Reductions along axes, which are an attribute in older opsets and an input in newer ones."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from curvlab.formats.onnx.operators.table import Result, axis_of, integers, number, operator

Reduction = Callable[[Tensor, list[int], bool], Tensor]


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """Π x, one axis after another: torch multiplies along one only."""
    for axis in sorted((axis_of(a, x.ndim) for a in axes), reverse=True):
        x = torch.prod(x, axis, keepdim=keep, dtype=x.dtype)
    return x


def _mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if x.is_floating_point():
        return torch.mean(x, axes, keepdim=keep)
    count = 1
    for axis in axes:
        count *= x.shape[axis]
    return torch.div(torch.sum(x, axes, keepdim=keep), count, rounding_mode="trunc").to(x.dtype)


def _extreme(function: Callable[..., Tensor], of_nothing: Callable[[torch.dtype], float]) -> Reduction:
    """Largest or smallest entry; of no entries, the type's own limit."""

    def run(x: Tensor, axes: list[int], keep: bool) -> Tensor:
        if any(x.shape[axis] == 0 for axis in axes):
            return torch.full_like(torch.sum(x, axes, keepdim=keep), of_nothing(x.dtype)).to(x.dtype)
        return function(x, axes, keepdim=keep)

    return run


def _lowest(dtype: torch.dtype) -> float:
    return -float("inf") if dtype.is_floating_point else 0 if dtype == torch.bool else torch.iinfo(dtype).min


def _highest(dtype: torch.dtype) -> float:
    return float("inf") if dtype.is_floating_point else 1 if dtype == torch.bool else torch.iinfo(dtype).max


def _log_sum_exp(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return torch.logsumexp(x if x.is_floating_point() else x.double(), axes, keepdim=keep).to(x.dtype)


def _in_type(function: Callable[[Tensor, list[int], bool], Tensor]) -> Reduction:
    return lambda x, axes, keep: function(x, axes, keep).to(x.dtype)


REDUCTIONS: dict[str, Reduction] = {
    "ReduceSum": _in_type(lambda x, axes, keep: torch.sum(x, axes, keepdim=keep)),
    "ReduceMean": _mean,
    "ReduceMax": _extreme(torch.amax, _lowest),
    "ReduceMin": _extreme(torch.amin, _highest),
    "ReduceProd": _product,
    "ReduceL1": _in_type(lambda x, axes, keep: torch.sum(x.abs(), axes, keepdim=keep)),
    "ReduceL2": _in_type(lambda x, axes, keep: _norm(x, axes, keep)),
    "ReduceSumSquare": _in_type(lambda x, axes, keep: torch.sum(x * x, axes, keepdim=keep)),
    "ReduceLogSum": _in_type(lambda x, axes, keep: torch.log(torch.sum(x, axes, keepdim=keep))),
    "ReduceLogSumExp": _log_sum_exp,
}


def _norm(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x if x.is_floating_point() else x.double(), 2, axes, keepdim=keep)
    return norm


def _by_input(reduction: Reduction) -> Callable[..., Result]:
    def run(x: Tensor, axes: Tensor | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
        given = [] if axes is None else integers(axes)
        if not given and noop_with_empty_axes:
            # Nothing is summed, but what is done to each element is done.
            return reduction(x[None], [0], False)
        return _reduced(reduction, x, given, keepdims)

    return run


def _by_attribute(reduction: Reduction) -> Callable[..., Result]:
    def run(x: Tensor, *, axes: list[int] | None = None, keepdims: int = 1) -> Tensor:
        return _reduced(reduction, x, axes or [], keepdims)

    return run


def _reduced(reduction: Reduction, x: Tensor, axes: list[int], keepdims: int) -> Tensor:
    if x.ndim == 0:
        return reduction(x[None], [0], False)
    return reduction(x, axes or list(range(x.ndim)), bool(keepdims))


for _name, _function in REDUCTIONS.items():
    _change = 13 if _name == "ReduceSum" else 18
    operator(_name, since=_change)(_by_input(_function))
    operator(_name, before=_change)(_by_attribute(_function))


@operator("ArgMax")
def argmax(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    """Position of the first (or last) largest entry along the axis."""
    return _position(x == x.amax(axis, keepdim=True), axis, keepdims, select_last_index)


@operator("ArgMin")
def argmin(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    """Position of the first (or last) smallest entry along the axis."""
    return _position(x == x.amin(axis, keepdim=True), axis, keepdims, select_last_index)


def _position(found: Tensor, axis: int, keepdims: int, last: int) -> Tensor:
    """torch's own argmax takes any of several equal entries: positions are compared instead."""
    size = found.shape[axis]
    shape = [1] * found.ndim
    shape[axis] = size
    where = torch.arange(size).reshape(shape)
    if last:
        return torch.where(found, where, -1).amax(axis, keepdim=bool(keepdims))
    return torch.where(found, where, size).amin(axis, keepdim=bool(keepdims))


@operator("CumSum")
def cumulative_sum(x: Tensor, axis: Tensor, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    """Σ of all entries up to each one."""
    return _cumulative(torch.cumsum, 0, x, int(number(axis)), exclusive, reverse)


@operator("CumProd")
def cumulative_product(x: Tensor, axis: Tensor, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    """Π of all entries up to each one."""
    return _cumulative(torch.cumprod, 1, x, int(number(axis)), exclusive, reverse)


def _cumulative(
    function: Callable[..., Tensor], neutral: int, x: Tensor, axis: int, exclusive: int, reverse: int
) -> Tensor:
    x = x.flip(axis) if reverse else x
    if exclusive:
        start = torch.full_like(x.narrow(axis, 0, min(1, x.shape[axis])), neutral)
        x = torch.cat([start, x.narrow(axis, 0, max(0, x.shape[axis] - 1))], axis)
    x = function(x, axis, dtype=x.dtype)
    return x.flip(axis) if reverse else x
