"""Counts of the multiplications nobody can avoid, relative to one gradient: what a ratio is to be read against."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from curvlab.capture.survey import Survey


@dataclass(frozen=True)
class Operations:
    """Multiplications per example, in units of one gradient.

    Attributes:
        passes: one forward, and the backward to every layer's output (no weight gradients).
        products: A and G of every layer, full squares.
        triangles: A and G as triangles only (they are symmetric). A 3×3 convolution's A counts 13 of its 81 blocks: the
            others are shifts of these.
        weighted: the second A and G that per-example tensor-normal factors need (T = 1).
    """

    passes: float
    products: float
    triangles: float
    weighted: float


def count(found: Survey) -> Operations:
    """Count over all layers of a survey."""
    forward = backward = gradient = products = triangles = weighted = 0.0
    for index, block in enumerate(found.blocks.values()):
        layer, t = block.layer, block.positions
        i, o = layer.in_features * layer.groups, layer.out_features * layer.groups
        if layer.kind not in ("Linear", "Conv2d"):
            continue
        apply = t * layer.groups * layer.in_features * layer.out_features
        forward += apply
        backward += apply if index else 0.0
        gradient += apply
        kernel = layer.parameters["weight"][0, 0].numel() if layer.kind == "Conv2d" else 1
        channels = i // kernel
        products += t * (i * i + o * o)
        offsets = 13 if kernel == 9 else kernel * kernel / 2
        triangles += t * (channels * channels * offsets + o * o / 2)
        weighted += t * (i * i + o * o) / 2
    total = forward + backward + gradient
    return Operations((forward + backward) / total, products / total, triangles / total, weighted / total)


def batch(x: Tensor, model: nn.Module) -> str:
    """A line that names what was measured."""
    return f"batch {len(x)}, {sum(p.numel() for p in model.parameters()):,} parameters"
