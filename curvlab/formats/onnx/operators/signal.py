"""Fourier transforms; complex numbers are pairs on the last axis."""

from __future__ import annotations

import torch
from torch import Tensor

from curvlab.formats.onnx.operators.table import integers, number, operator


@operator("DFT", since=20)
def dft(
    x: Tensor, length: Tensor | None = None, axis: Tensor | None = None, *, inverse: int = 0, onesided: int = 0
) -> Tensor:
    """Σ_n x[n] exp(∓2πi kn/N) along the axis, divided by N for the inverse."""
    chosen = -2 if axis is None else int(number(axis))
    return _transform(x, None if length is None else int(number(length)), chosen, inverse, onesided)


@operator("DFT", before=20)
def dft_along(x: Tensor, length: Tensor | None = None, *, axis: int = 1, inverse: int = 0, onesided: int = 0) -> Tensor:
    """The axis as an attribute."""
    return _transform(x, None if length is None else int(number(length)), axis, inverse, onesided)


def _transform(x: Tensor, length: int | None, axis: int, inverse: int, onesided: int) -> Tensor:
    signal = x[..., 0] if x.shape[-1] == 1 else torch.complex(x[..., 0], x[..., 1])
    axis = axis % x.ndim
    if inverse and onesided:
        real: Tensor = torch.fft.irfft(signal, length, axis)
        return real[..., None]
    if inverse:
        return torch.view_as_real(torch.fft.ifft(signal, length, axis))
    y = torch.fft.fft(signal, length, axis)
    return torch.view_as_real(y.narrow(axis, 0, y.shape[axis] // 2 + 1) if onesided else y)


@operator("STFT")
def stft(
    x: Tensor, step: Tensor, window: Tensor | None = None, length: Tensor | None = None, *, onesided: int = 1
) -> Tensor:
    """The transform of every window of the signal `[examples, samples, 1 or 2]`: `[examples, frames, bins, 2]`."""
    size = integers(length)[0] if length is not None else window.shape[0] if window is not None else x.shape[1]
    signal = x[..., 0] if x.shape[-1] == 1 else torch.complex(x[..., 0], x[..., 1])
    frames = signal.unfold(1, size, int(number(step)))
    y = torch.fft.fft(frames if window is None else frames * window, dim=-1)
    return torch.view_as_real(y[..., : size // 2 + 1] if onesided else y)
