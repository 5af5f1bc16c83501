"""Σ_n D_n²: the squares of every example's gradient, entry by entry, without holding more gradients than a chunk."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from curvlab.capture.sample import Sample
from curvlab.linalg.flushed import flushed
from curvlab.linalg.grouped_product import grouped_product
from curvlab.shapes import Float
from curvlab.statistics.parameter_gradients import parameter_gradients
from curvlab.statistics.position_factors import is_dense, sides
from curvlab.statistics.sample_rows import one_hot
from curvlab.statistics.squares_by_positions import squares_by_positions

CHUNK = 2**24
"""Entries of per-example gradients formed at a time."""


def squared_gradients(parts: Sequence[tuple[Sample, str]], shape: tuple[int, ...]) -> Tensor:
    """Σ_n D_n² of one parameter in one backward pass.

    Args:
        parts: (sample, role) of every use of the parameter; their gradients add up before they are squared.
        shape: of the parameter.
    """
    sample, role = parts[0]
    if len(parts) == 1 and role == "bias":
        return sample.output_gradients.sum(2).square().sum(1).reshape(shape)
    by_positions = sides(parts, shape) if any(one_hot(part) for part, _ in parts) else None
    if by_positions is not None and is_dense(by_positions[1]):
        return squares_by_positions(*by_positions, (shape[0], shape[1]), sample.dtype)
    if len(parts) == 1:
        squares = squared_products(sample.output_gradients, sample.features)
        return sample.layer.split(F.pad(squares, (0, 1)) if sample.layer.biased else squares)[role].reshape(shape)
    step = max(1, CHUNK // max(1, math.prod(shape)))
    total = sample.output_gradients.new_zeros(shape)
    for start in range(0, sample.examples, step):
        total += parameter_gradients(parts, shape, slice(start, start + step)).square_().sum(0)
    return total


def squared_products(g: Float[Tensor, "g n s o"], a: Float[Tensor, "g n s j"]) -> Float[Tensor, "g o j"]:
    """Σ_n (Σ_s g aᵀ)², entry by entry.

    At one position that is (g²)ᵀ(a²), one product; at several the gradients are formed, some examples, or some outputs
    of one example, at a time.
    """
    groups, examples, positions, width = a.shape
    outputs = g.shape[-1]
    if positions == 1:
        small = torch.finfo(a.dtype).tiny ** 0.5
        left, right = flushed(g[:, :, 0].square(), small), flushed(a[:, :, 0].square(), small)
        return flushed(grouped_product(left.mT, right))
    total = g.new_zeros(groups, outputs, width)
    rows = max(1, min(outputs, CHUNK // max(1, groups * width)))
    step = max(1, CHUNK // max(1, groups * width * rows))
    for start in range(0, examples, step):
        own = slice(start, start + step)
        for top in range(0, outputs, rows):
            some = slice(top, top + rows)
            total[:, some] += (g[:, own, :, some].mT @ a[:, own]).square_().sum(1)
    return total
