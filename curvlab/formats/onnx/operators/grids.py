"""Reading images at places that the graph computes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from curvlab.formats.onnx.operators.table import UnsupportedOperator, integers, operator

_MODES = {"linear": "bilinear", "bilinear": "bilinear", "nearest": "nearest", "cubic": "bicubic", "bicubic": "bicubic"}


@operator("GridSample")
def grid_sample(
    x: Tensor, grid: Tensor, *, align_corners: int = 0, mode: str = "linear", padding_mode: str = "zeros"
) -> Tensor:
    """x at the grid's places, which run from −1 to 1."""
    if mode not in _MODES or (x.ndim == 5 and _MODES[mode] == "bicubic"):
        raise UnsupportedOperator(f"operator GridSample in the mode {mode!r}", "not supported")
    return F.grid_sample(x, grid, _MODES[mode], padding_mode, bool(align_corners))


@operator("AffineGrid")
def affine_grid(theta: Tensor, size: Tensor, *, align_corners: int = 0) -> Tensor:
    """The places θ (x, y, 1)ᵀ of an image's pixels."""
    return F.affine_grid(theta, integers(size), bool(align_corners))


@operator("RoiAlign")
def roi_align(
    x: Tensor,
    rois: Tensor,
    batch_indices: Tensor,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Tensor:
    """The mean (or largest) of points read bilinearly in each bin of each region of an image."""
    shift = 0.5 if coordinate_transformation_mode == "half_pixel" else 0.0
    height, width = x.shape[2:]
    found = []
    for box, image in zip(rois * spatial_scale - shift, integers(batch_indices), strict=True):
        x1, y1, x2, y2 = box.unbind()
        tall, wide = y2 - y1, x2 - x1
        if not shift:
            tall, wide = tall.clamp(min=1), wide.clamp(min=1)
        down = sampling_ratio or max(1, int(torch.ceil(tall / output_height)))
        across = sampling_ratio or max(1, int(torch.ceil(wide / output_width)))
        rows = y1 + tall / (output_height * down) * (torch.arange(output_height * down) + 0.5)
        columns = x1 + wide / (output_width * across) * (torch.arange(output_width * across) + 0.5)
        weights = [w for v, n in ((rows, height), (columns, width)) for w in _between(v, n)]
        (r0, a0), (r1, a1), (c0, b0), (c1, b1) = weights
        plane = x[image]
        pieces = [
            plane[:, r][:, :, c] * (a[:, None] * b) for r, a in ((r0, a0), (r1, a1)) for c, b in ((c0, b0), (c1, b1))
        ]
        shape = (-1, output_height, down, output_width, across)
        if mode == "max":  # the largest weighted neighbour, as the standard has it
            largest = torch.stack(pieces).amax(0).reshape(shape)
            found.append(largest.amax((2, 4)))
        else:
            found.append(torch.stack(pieces).sum(0).reshape(shape).mean((2, 4)))
    return torch.stack(found) if found else x.new_zeros(0, x.shape[1], output_height, output_width)


def _between(place: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    """The two neighbours of each place and their weights; far outside the image both are 0."""
    inside = ((place >= -1) & (place <= size)).to(place.dtype)
    kept = place.clamp(0, size - 1)
    low = kept.floor().long().clamp(max=size - 1)
    high = (low + 1).clamp(max=size - 1)
    part = kept - low
    return [(low, (1 - part) * inside), (high, part * inside)]
