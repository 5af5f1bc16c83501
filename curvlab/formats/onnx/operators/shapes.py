"""Shapes: the same elements in another arrangement."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from curvlab.formats.onnx.operators.table import Result, UnsupportedOperator, axis_of, integers, operator


@operator("Reshape", since=5)
def reshape(x: Tensor, shape: Tensor, *, allowzero: int = 0) -> Tensor:
    """Sizes of 0 are copied from x unless they are allowed to be 0; −1 is whatever is left."""
    return _reshaped(x, integers(shape), allowzero)


@operator("Reshape", before=5)
def reshape_to(x: Tensor, *, shape: list[int]) -> Tensor:
    """The shape as an attribute."""
    return _reshaped(x, shape, 0)


def _reshaped(x: Tensor, shape: list[int], allowzero: int) -> Tensor:
    if not allowzero:
        shape = [x.shape[axis] if size == 0 else size for axis, size in enumerate(shape)]
    if x.numel() == 0 and -1 in shape:  # torch finds −1 ambiguous there
        rest = prod(size for size in shape if size != -1)
        shape = [(0 if rest == 0 else x.numel() // rest) if size == -1 else size for size in shape]
    return x.reshape(shape)


@operator("Flatten")
def flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    """Two axes: those before `axis`, and the others."""
    axis = axis_of(axis, x.ndim)
    return x.reshape(prod(x.shape[:axis]), prod(x.shape[axis:]))


@operator("Squeeze", since=13)
def squeeze(x: Tensor, axes: Tensor | None = None) -> Tensor:
    """Without axes of length 1."""
    return squeeze_axes(x, axes=None if axes is None else integers(axes))


@operator("Squeeze", before=13)
def squeeze_axes(x: Tensor, *, axes: list[int] | None = None) -> Tensor:
    """The axes as an attribute."""
    return x.squeeze() if axes is None else x.squeeze(axes)


@operator("Unsqueeze", since=13)
def unsqueeze(x: Tensor, axes: Tensor) -> Tensor:
    """With axes of length 1 at these places of the result."""
    return unsqueeze_axes(x, axes=integers(axes))


@operator("Unsqueeze", before=13)
def unsqueeze_axes(x: Tensor, *, axes: list[int]) -> Tensor:
    """The axes as an attribute."""
    places = {axis_of(axis, x.ndim + len(axes)) for axis in axes}
    sizes = iter(x.shape)
    return x.reshape([1 if axis in places else next(sizes) for axis in range(x.ndim + len(places))])


@operator("Transpose")
def transpose(x: Tensor, *, perm: list[int] | None = None) -> Tensor:
    """Axes in another order; reversed without one."""
    return x.permute(perm if perm is not None else list(range(x.ndim))[::-1])


@operator("Concat", since=4)
def concatenate(*x: Tensor, axis: int) -> Tensor:
    """One after another along the axis."""
    return torch.cat(x, axis)


@operator("Concat", before=4)
def concatenate_channels(*x: Tensor, axis: int = 1) -> Tensor:
    """Along the channels unless another axis is given."""
    return torch.cat(x, axis)


@operator("Split", since=13)
def split(
    x: Tensor, split: Tensor | None = None, *, axis: int = 0, num_outputs: int | None = None, outputs: int
) -> Result:
    """Parts of these sizes along the axis; without sizes, as equal as can be."""
    return _parts(x, axis, None if split is None else integers(split), num_outputs or outputs)


@operator("Split", since=2, before=13)
def split_by_attribute(x: Tensor, *, axis: int = 0, split: list[int] | None = None, outputs: int) -> Result:
    """The sizes as an attribute."""
    return _parts(x, axis, split, outputs)


@operator("Split", before=2)
def split_by_either(
    x: Tensor, sizes: Tensor | None = None, *, axis: int = 0, split: list[int] | None = None, outputs: int
) -> Result:
    """The sizes as an attribute or an input."""
    return _parts(x, axis, split if sizes is None else integers(sizes), outputs)


def _parts(x: Tensor, axis: int, sizes: list[int] | None, count: int) -> Result:
    if sizes is None:
        size = -(-x.shape[axis] // count)
        left = x.shape[axis]
        sizes = [min(size, max(0, left - size * i)) for i in range(count)]
    return torch.split(x, sizes, axis)


@operator("Expand")
def expand(x: Tensor, shape: Tensor) -> Tensor:
    """Broadcast with a shape."""
    return x.expand(torch.broadcast_shapes(x.shape, integers(shape)))  # type: ignore[no-untyped-call]


@operator("Tile", since=6)
def tile(x: Tensor, repeats: Tensor) -> Tensor:
    """So many copies along each axis."""
    return x.repeat(integers(repeats))


@operator("Tile", before=6)
def tile_axis(x: Tensor, tiles: Tensor, axis: Tensor) -> Tensor:
    """So many copies along one axis."""
    repeats = [1] * x.ndim
    repeats[integers(axis)[0]] = integers(tiles)[0]
    return x.repeat(repeats)


@operator("Shape")
def shape(x: Tensor, *, start: int = 0, end: int | None = None) -> Tensor:
    """The sizes of x, or some of them."""
    return torch.tensor(list(x.shape)[slice(start, end)], dtype=torch.int64)


@operator("Size")
def size(x: Tensor) -> Tensor:
    """The number of elements."""
    return torch.tensor(x.numel())


@operator("DepthToSpace")
def depth_to_space(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    """Channels spread over blocks of pixels; the block's place is the first part of the channel (DCR) or the last."""
    n, c, h, w = x.shape
    b = blocksize
    if mode == "CRD":
        return F.pixel_shuffle(x, b)
    return x.reshape(n, b, b, c // b**2, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, c // b**2, h * b, w * b)


@operator("SpaceToDepth")
def space_to_depth(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    """Blocks of pixels gathered in channels."""
    n, c, h, w = x.shape
    b = blocksize
    if mode == "CRD":
        return F.pixel_unshuffle(x, b)
    return x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4).reshape(n, c * b**2, h // b, w // b)


_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


@operator("Pad", since=11)
def pad(
    x: Tensor, pads: Tensor, value: Tensor | None = None, axes: Tensor | None = None, *, mode: str = "constant"
) -> Tensor:
    """Elements added before and behind each axis; negative numbers crop."""
    chosen = list(range(x.ndim)) if axes is None else [axis_of(axis, x.ndim) for axis in integers(axes)]
    return padded(x, integers(pads), chosen, mode, 0.0 if value is None else value.reshape(-1)[0].item())


@operator("Pad", since=2, before=11)
def pad_by_attribute(x: Tensor, *, pads: list[int], mode: str = "constant", value: float = 0.0) -> Tensor:
    """The numbers as attributes."""
    return padded(x, pads, list(range(x.ndim)), mode, value)


@operator("Pad", before=2)
def pad_old(x: Tensor, *, paddings: list[int], mode: str = "constant", value: float = 0.0) -> Tensor:
    """Under the attribute's first name."""
    return padded(x, paddings, list(range(x.ndim)), mode, value)


def padded(x: Tensor, pads: Sequence[int], axes: Sequence[int], mode: str, value: float = 0.0) -> Tensor:
    """x with pads[i] elements before axis axes[i] and pads[len(axes) + i] behind it."""
    if mode not in _MODES:
        raise UnsupportedOperator(f"operator Pad in the mode {mode!r}", "not supported")
    sides = [(0, 0)] * x.ndim
    for i, axis in enumerate(axes):
        sides[axis] = (pads[i], pads[len(axes) + i])
    if mode == "constant":
        return F.pad(x, [p for side in reversed(sides) for p in side], value=value)
    for axis, (low, high) in enumerate(sides):  # one after another: torch's kernels take the last axes only
        index = torch.arange(-low, x.shape[axis] + high)
        if low or high:
            x = x.index_select(axis, _reflected(index, x.shape[axis], mode))
    return x


def _reflected(index: Tensor, size: int, mode: str) -> Tensor:
    if mode == "edge":
        return index.clamp(0, size - 1)
    if mode == "wrap":
        return index % size
    period = max(1, 2 * (size - 1))
    index = index % period
    return torch.minimum(index, period - index)


@operator("CenterCropPad")
def center_crop_pad(x: Tensor, shape: Tensor, *, axes: list[int] | None = None) -> Tensor:
    """The middle of x, or x in the middle of zeros."""
    chosen = list(range(x.ndim)) if axes is None else [axis_of(axis, x.ndim) for axis in axes]
    low, high = [], []
    for axis, wanted in zip(chosen, integers(shape), strict=True):
        more = wanted - x.shape[axis]
        before = more // 2 if more >= 0 else -(-more // 2)
        low.append(before)
        high.append(more - before)
    return padded(x, low + high, chosen, "constant")
