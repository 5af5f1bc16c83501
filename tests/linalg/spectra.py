"""Symmetric matrices of a known spectrum, and how to count what reads from the device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


def with_eigenvalues(values: Tensor, seed: int = 0) -> Tensor:
    """Q diag(values) Qᵀ in float64 with a random orthogonal Q."""
    d = len(values)
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))
    x = (q * values.double()) @ q.T
    return (x + x.T) / 2


def conditioned(d: int, condition: float, seed: int = 0, scale: float = 1.0) -> Tensor:
    """A float64 matrix with eigenvalues spread evenly, on a log scale, from scale/condition to scale."""
    low = torch.tensor(1.0 / condition, dtype=torch.float64)
    return scale * with_eigenvalues(torch.logspace(low.log10().item(), 0, d, dtype=torch.float64), seed)


class Reads(TorchDispatchMode):
    """Counts the numbers that are read back from a device."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if "_local_scalar_dense" in str(function) or "nonzero" in str(function):
            self.count += 1
        return function(*args, **(kwargs or {}))
