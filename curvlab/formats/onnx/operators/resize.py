"""Resizing: along each axis a sparse matrix of weights, made from where each output element lies in the input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import floor

import torch
from torch import Tensor

from curvlab.formats.onnx.operators.table import UnsupportedOperator, axis_of, integers, operator

_DOUBLE = torch.float64


@dataclass(frozen=True)
class _Filter:
    """How an axis is resized: the attributes of the operator that all axes share."""

    mode: str
    coordinates: str
    nearest: str
    cubic: float
    outside: bool
    antialias: bool


@operator("Resize", since=11)
def resize(
    x: Tensor,
    roi: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Tensor | None = None,
    *,
    antialias: int = 0,
    axes: list[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Tensor:
    """x at other sizes: nearest, linear or cubic between its elements; a wider filter against aliasing if asked."""
    chosen = list(range(x.ndim)) if axes is None else [axis_of(axis, x.ndim) for axis in axes]
    kind = _Filter(
        mode, coordinate_transformation_mode, nearest_mode, cubic_coeff_a, not exclude_outside, bool(antialias)
    )
    given = [x.shape[axis] for axis in chosen]
    if scales is not None and scales.numel():
        factors = [float(s) for s in scales.double().tolist()]
        wanted = [floor(n * s) for n, s in zip(given, factors, strict=True)]
    elif sizes is not None:
        wanted = integers(sizes)
        factors = [w / n for w, n in zip(wanted, given, strict=True)]
        if keep_aspect_ratio_policy != "stretch":
            factor = min(factors) if keep_aspect_ratio_policy == "not_larger" else max(factors)
            factors = [factor] * len(given)
            wanted = [floor(n * factor + 0.5) for n in given]
    else:
        raise UnsupportedOperator("operator Resize", "it has neither scales nor sizes")
    crop = [0.0] * len(chosen) + [1.0] * len(chosen) if roi is None or not roi.numel() else roi.double().tolist()
    y, beyond = x, []
    for i, axis in enumerate(chosen):
        window = (crop[i], crop[len(chosen) + i])
        whole = (
            wanted[i] == x.shape[axis] and factors[i] == 1 and coordinate_transformation_mode != "tf_crop_and_resize"
        )
        if whole:
            continue
        y, outside = _axis(y, axis, factors[i], wanted[i], kind, window)
        beyond.append((axis, outside))
    if coordinate_transformation_mode == "tf_crop_and_resize":
        for axis, outside in beyond:
            shape = [1] * x.ndim
            shape[axis] = -1
            y = torch.where(outside.reshape(shape), torch.tensor(extrapolation_value, dtype=y.dtype), y)
    return y


@operator("Resize", since=10, before=11)
@operator("Upsample", since=9, before=10)
def resize_by_scales(x: Tensor, scales: Tensor, *, mode: str = "nearest") -> Tensor:
    """Positions are divided by the scale; the nearest element is the one before."""
    return resize(x, None, scales, mode=mode, coordinate_transformation_mode="asymmetric", nearest_mode="floor")


@operator("Upsample", since=7, before=9)
def upsample_by_attribute(x: Tensor, *, scales: list[float], mode: str = "nearest") -> Tensor:
    """The scales as an attribute."""
    return resize_by_scales(x, torch.tensor(scales, dtype=_DOUBLE), mode=mode)


def _axis(
    x: Tensor, axis: int, scale: float, size: int, kind: _Filter, window: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """x resized along one axis, and which of its new elements lie outside the old ones."""
    length = x.shape[axis]
    place = _places(kind.coordinates, size, length, scale, window)
    base = place.ceil() - 1  # the element before, also of a whole number
    offsets, weights = _weights(place - base, scale, kind)
    index = base[:, None].long() + offsets
    if not kind.outside:
        weights = torch.where((index < 0) | (index >= length), 0.0, weights)
        weights = weights / weights.sum(1, keepdim=True)
    index = index.clamp(0, length - 1)
    outside = (place < 0) | (place > length - 1)
    if kind.mode == "nearest":
        return x.index_select(axis, index.gather(1, weights.argmax(1, keepdim=True))[:, 0]), outside
    matrix = torch.zeros(size, length, dtype=_DOUBLE).scatter_add(1, index, weights)
    work = x.movedim(axis, -1)
    return torch.matmul(work, matrix.T.to(work.dtype)).movedim(-1, axis), outside


def _places(mode: str, size: int, length: int, scale: float, window: tuple[float, float]) -> Tensor:
    """Where each output element lies in the input."""
    y, width = torch.arange(size, dtype=_DOUBLE), scale * length
    start, end = window
    if mode == "align_corners":
        return y * 0 if width == 1 else y * (length - 1) / (width - 1)
    if mode == "asymmetric":
        return y / scale
    if mode == "tf_crop_and_resize":
        step = (end - start) * (length - 1)
        return start * (length - 1) + (y * 0 + step / 2 if width == 1 else y * step / (width - 1))
    if mode == "tf_half_pixel_for_nn":
        return (y + 0.5) / scale
    half = (y + 0.5) / scale - 0.5
    if mode == "pytorch_half_pixel":
        return half if width != 1 else y * 0 - 0.5
    if mode == "half_pixel_symmetric":
        return half + length / 2 * (1 - size / width)
    if mode == "half_pixel":
        return half
    raise UnsupportedOperator(f"operator Resize with the coordinates {mode!r}", "not supported")


def _weights(ratio: Tensor, scale: float, kind: _Filter) -> tuple[Tensor, Tensor]:
    """Offsets from the element before, and their weights; `ratio` in (0, 1] is the distance from it."""
    narrow = min(scale, 1.0) if kind.antialias else 1.0
    if kind.mode == "nearest":
        return torch.arange(2), _nearest(ratio, kind.nearest)
    reaches: dict[str, tuple[int, Callable[[Tensor], Tensor]]] = {
        "linear": (1, lambda d: (1 - d).clamp(min=0)),
        "cubic": (2, lambda d: _cubic(d, kind.cubic)),
    }
    if kind.mode not in reaches:
        raise UnsupportedOperator(f"operator Resize in the mode {kind.mode!r}", "not supported")
    reach, shape = reaches[kind.mode]
    first = floor(-reach / narrow) + 1
    offsets = torch.arange(first, 2 - first)
    weights = shape(((offsets - ratio[:, None]) * narrow).abs())
    return offsets, weights / weights.sum(1, keepdim=True) if kind.antialias else weights


def _nearest(ratio: Tensor, mode: str) -> Tensor:
    """1 for the element before or behind; a whole number is the one behind."""
    behind = {
        "round_prefer_floor": ratio > 0.5,
        "round_prefer_ceil": ratio >= 0.5,
        "floor": ratio >= 1,
        "ceil": ratio > 0,
    }.get(mode)
    if behind is None:
        raise UnsupportedOperator(f"operator Resize with the nearest mode {mode!r}", "not supported")
    return torch.stack([~behind, behind], 1).to(_DOUBLE)


def _cubic(d: Tensor, a: float) -> Tensor:
    """Keys' kernel (1981) with parameter a."""
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))
