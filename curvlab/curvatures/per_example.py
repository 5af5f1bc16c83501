"""DW_n of a block: every example's gradient of W̄, summed over all uses of its parameters (docs/curvature.md)."""

from __future__ import annotations

import torch
from torch import Tensor

from curvlab.capture.batch_record import Samples
from curvlab.capture.sample import per_example_gradients
from curvlab.curvatures.blocks import PreconditionerBlock
from curvlab.shapes import Float


def block_gradients(block: PreconditionerBlock, samples: Samples) -> Float[Tensor, "n g o j"] | None:
    """DW_n of the block's matrix W̄; None if no use of it was reached."""
    reached = [(use, samples[use.block.name]) for use in block.uses if use.block.name in samples]
    if not reached:
        return None
    if len(block.uses) == 1:
        sample = reached[0][1]
        return per_example_gradients(sample.layer, sample.features, sample.output_gradients)
    total: dict[str, Tensor] = {}
    for use, sample in reached:
        parts = sample.layer.split(per_example_gradients(sample.layer, sample.features, sample.output_gradients))
        for role, gradient in parts.items():
            name = use.block.parameters[role]
            total[name] = total[name] + gradient if name in total else gradient
    like, count = next(iter(total.values())), reached[0][1].examples
    layer = block.uses[0].block.layer
    tensors = {
        role: total.get(name, like.new_zeros(count, *layer.parameters[role].shape))
        for role, name in block.parameters.items()
    }
    rows: Tensor = torch.vmap(layer.matrix)(tensors)
    return rows
