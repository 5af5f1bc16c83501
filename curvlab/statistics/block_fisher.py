"""Exact block: F = 1/N Σ_n vec(DW_n) vec(DW_n)ᵀ over W̄ flattened row by row (docs/curvature.md; Ren 2022, section
4.3.4)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from curvlab.capture.sample import Sample, per_example_gradients
from curvlab.capture.survey import LayerBlock
from curvlab.linalg.gram import mirrored, upper_gram
from curvlab.shapes import Float
from curvlab.statistics.running import RunningSum


class BlockFisher:
    """Running exact Fisher block of one layer's W̄: (o·i)² numbers, so for small blocks only."""

    def __init__(self) -> None:
        self.sum = RunningSum()

    def update(self, block: LayerBlock, samples: Mapping[str, Sample], blocks: Mapping[str, LayerBlock]) -> None:
        """Add one backward pass.

        Args:
            block: whose Fisher this is.
            samples: of this block and of all blocks that share parameters with it, by name.
            blocks: all blocks, by name.
        """
        self.sum.add(upper_gram(jacobian(block, samples, blocks)))

    def value(self, examples: int) -> Float[Tensor, "p p"]:
        """F, float64."""
        return mirrored(self.sum.mean(examples))


def jacobian(
    block: LayerBlock, samples: Mapping[str, Sample], blocks: Mapping[str, LayerBlock]
) -> Float[Tensor, "n p"]:
    """Rows vec(DW_n): the gradient with respect to the block's own parameters, through every use of them in the
    network."""
    sample = samples[block.name]
    own = per_example_gradients(sample.layer, sample.features, sample.output_gradients)
    if not block.tied:
        return own.flatten(1)
    total: dict[str, Tensor] = {}
    for name in [block.name, *block.tied]:
        if name not in samples:
            continue
        other = samples[name]
        parts = other.layer.split(per_example_gradients(other.layer, other.features, other.output_gradients))
        for role, gradient in parts.items():
            parameter = blocks[name].parameters[role]
            total[parameter] = total[parameter] + gradient if parameter in total else gradient
    tensors = {role: total[parameter] for role, parameter in block.parameters.items()}
    rows: Tensor = torch.vmap(block.layer.matrix)(tensors)
    return rows.flatten(1)
