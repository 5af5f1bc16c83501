"""Sliding windows: strides, dilations and the padding that `auto_pad` asks for, one entry per spatial axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from curvlab.formats.onnx.operators.table import UnsupportedOperator, operator


@dataclass(frozen=True)
class Window:
    """Windows of a convolution or pooling over axes of these sizes.

    Attributes:
        kernel: extent of the window.
        strides: distance of neighbouring windows.
        dilations: distance of neighbouring entries of one window.
        low: elements added before each axis.
        high: elements added behind each axis.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]

    @property
    def reach(self) -> tuple[int, ...]:
        """Extent of a window with its gaps."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def symmetric(self) -> bool:
        """As much padding before as behind, none of it negative: what torch's modules know."""
        return self.low == self.high and all(p >= 0 for p in self.low)


def window(
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int] | None,
    dilations: Sequence[int] | None,
    pads: Sequence[int] | None,
    auto_pad: str,
) -> Window:
    """The windows that the attributes describe; SAME pads so that every stride-th element begins one.

    Raises:
        UnsupportedOperator: numbers of axes disagree, or a size is not positive.
    """
    axes = len(kernel)
    strides = tuple(strides or (1,) * axes)
    dilations = tuple(dilations or (1,) * axes)
    pads = tuple(pads or (0,) * (2 * axes))
    if not len(sizes) == len(strides) == len(dilations) == axes or len(pads) != 2 * axes:
        raise UnsupportedOperator("a window over another number of axes than the data has", "the node is malformed")
    if min((*kernel, *strides, *dilations), default=1) < 1:
        raise UnsupportedOperator("a window with a size that is not positive", "the node is malformed")
    low, high = pads[:axes], pads[axes:]
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        total = [
            max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
            for n, k, s, d in zip(sizes, kernel, strides, dilations, strict=True)
        ]
        less, more = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
        low, high = (less, more) if auto_pad == "SAME_UPPER" else (more, less)
    elif auto_pad == "VALID":
        low = high = (0,) * axes
    elif auto_pad != "NOTSET":
        raise UnsupportedOperator(f"auto_pad {auto_pad!r}", "not supported")
    return Window(tuple(kernel), strides, dilations, low, high)


@operator("Col2Im")
def col2im(
    x: Tensor,
    image_shape: Tensor,
    block_shape: Tensor,
    *,
    dilations: list[int] | None = None,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Tensor:
    """The image whose patches are the columns of x; what overlaps is added."""
    image, block = ([int(v) for v in t.tolist()] for t in (image_shape, block_shape))
    w = window(image, block, strides, dilations, pads, "NOTSET")
    n, channels = x.shape[0], x.shape[1] // int(torch.tensor(block).prod())
    # Every entry's place in the padded image, counted along all its axes.
    padded = [size + a + b for size, a, b in zip(image, w.low, w.high, strict=True)]
    place = torch.zeros(1, 1, dtype=torch.int64)
    for size, reach, k, s, d in zip(padded, w.reach, w.kernel, w.strides, w.dilations, strict=True):
        steps = torch.arange((size - reach) // s + 1) * s
        along = torch.arange(k)[:, None] * d + steps
        outer = place[:, None, :, None] * size + along[None, :, None, :]
        place = outer.reshape(place.shape[0] * k, -1)
    out = x.new_zeros(n, channels, int(torch.tensor(padded).prod()))
    flat = x.reshape(n, channels, -1)
    out = out.scatter_add(2, place.reshape(1, 1, -1).expand(flat.shape), flat).reshape(n, channels, *padded)
    for axis, (low, size) in enumerate(zip(w.low, image, strict=True)):
        out = out.narrow(axis + 2, low, size)
    return out
