"""Tensors made from sizes: constants, ranges, windows, identity matrices."""

from __future__ import annotations

from math import pi

import torch
from torch import Tensor

from curvlab.formats.onnx.operators.element_types import element_type
from curvlab.formats.onnx.operators.table import integers, number, operator


@operator("Constant")
def constant(
    *,
    value: Tensor | None = None,
    value_float: float | None = None,
    value_floats: list[float] | None = None,
    value_int: int | None = None,
    value_ints: list[int] | None = None,
) -> Tensor:
    """The attribute."""
    if value is not None:
        return value
    if value_float is not None or value_floats is not None:
        return torch.tensor(value_float if value_floats is None else value_floats, dtype=torch.float32)
    return torch.tensor(value_int if value_ints is None else value_ints, dtype=torch.int64)


@operator("ConstantOfShape")
def constant_of_shape(shape: Tensor, *, value: Tensor | None = None) -> Tensor:
    """One value in this shape."""
    if value is None:
        return torch.zeros(integers(shape))
    return torch.full(integers(shape), value.reshape(-1)[0].item(), dtype=value.dtype)


@operator("Range")
def arange(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    """start, start + delta, … below the limit."""
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


@operator("EyeLike")
def eye_like(x: Tensor, *, dtype: int | None = None, k: int = 0) -> Tensor:
    """Ones on the k-th diagonal."""
    kind = x.dtype if dtype is None else element_type(dtype)
    rows, columns = (torch.arange(size) for size in x.shape)
    return (columns[None] - rows[:, None] == k).to(kind)


def _cosines(size: Tensor, periodic: int, weights: tuple[float, ...], dtype: int) -> Tensor:
    """Σ_k (−1)^k weights[k] cos(2π k n / N), N one less for a symmetric window."""
    count = int(number(size))
    angle = 2 * pi * torch.arange(count, dtype=torch.float64) / max(1, count - (0 if periodic else 1))
    terms = [(-1) ** k * weight * torch.cos(k * angle) for k, weight in enumerate(weights)]
    return torch.stack(terms).sum(0).to(element_type(dtype))


@operator("HannWindow")
def hann_window(size: Tensor, *, output_datatype: int = 1, periodic: int = 1) -> Tensor:
    """1/2 − 1/2 cos(2πn/N)."""
    return _cosines(size, periodic, (0.5, 0.5), output_datatype)


@operator("HammingWindow")
def hamming_window(size: Tensor, *, output_datatype: int = 1, periodic: int = 1) -> Tensor:
    """25/46 − 21/46 cos(2πn/N)."""
    return _cosines(size, periodic, (25 / 46, 21 / 46), output_datatype)


@operator("BlackmanWindow")
def blackman_window(size: Tensor, *, output_datatype: int = 1, periodic: int = 1) -> Tensor:
    """0.42 − 0.5 cos(2πn/N) + 0.08 cos(4πn/N)."""
    return _cosines(size, periodic, (0.42, 0.5, 0.08), output_datatype)


@operator("MelWeightMatrix")
def mel_weight_matrix(
    bins: Tensor, length: Tensor, rate: Tensor, lowest: Tensor, highest: Tensor, *, output_datatype: int = 1
) -> Tensor:
    """Triangles on the mel scale, one column each, over the frequencies of a Fourier transform."""
    count, size = int(number(bins)), int(number(length))
    spectrogram = size // 2 + 1
    low, high = (2595 * torch.log10(1 + f.reshape(-1)[0].double() / 700) for f in (lowest, highest))
    mel = low + torch.arange(count + 2, dtype=torch.float64) * ((high - low) / (count + 2))
    edges = torch.floor((size + 1) * (700 * (10 ** (mel / 2595) - 1)) / number(rate))
    places = torch.arange(spectrogram, dtype=torch.float64)[:, None]
    left, middle, right = edges[:-2], edges[1:-1], edges[2:]
    rising = torch.where(middle == left, (places == middle).double(), (places - left) / (middle - left))
    falling = (right - places) / (right - middle)
    inside = torch.where(places <= middle, rising, falling)
    return torch.where((places >= left) & (places < right) | (places == middle), inside, 0.0).to(
        element_type(output_datatype)
    )
