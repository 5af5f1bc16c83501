"""What an analysis will take before it is done: sizes, memory and work of every block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from curvlab.analyses.memory_plan import MemoryPlan
from curvlab.capture.survey import LayerBlock, Survey


@dataclass(frozen=True)
class BlockEstimate:
    """One block: i inputs (with the bias's 1), o outputs, T positions; bytes held until the end; multiplications for
    all examples. For a matrix that an analysis looks at, its two sides, and bytes held while it does."""

    name: str
    kind: str
    input_size: int
    output_size: int
    positions: int
    memory: int
    work: float


@dataclass(frozen=True)
class Estimate:
    """The answer to `--dry-run`: nothing has been computed. `memory` is the sum over blocks plus activations of one
    batch, and the most that comes on top for one matrix after another, in bytes."""

    blocks: tuple[BlockEstimate, ...]
    memory: int
    work: float
    notes: tuple[str, ...] = ()


def estimate_blocks(survey: Survey, plan: MemoryPlan, examples: int) -> list[BlockEstimate]:
    """One estimate per block, in the model's order."""
    held = plan.memory()
    contracted: dict[str, list[tuple[int, ...]]] = {}
    for _, blocks in plan.recipes:
        for tensor in (one for one in blocks if not one.is_matrix):
            contracted.setdefault(tensor.uses[0].block.name, []).append(tensor.shape)
    return [_block(b, held.get(name, 0), contracted.get(name, []), examples) for name, b in survey.blocks.items()]


def _block(block: LayerBlock, memory: int, contracted: Sequence[tuple[int, ...]], examples: int) -> BlockEstimate:
    layer, positions = block.layer, max(1, block.positions)
    width, height = layer.in_features + layer.biased, layer.out_features
    rows = examples * positions * layer.groups
    work = rows * (width * width + height * height + 3 * width * height)
    if contracted:  # the modes of every parameter tensor, each by itself
        work += examples * sum(prod(shape) * sum(shape) for shape in contracted if positions > 1)
        work += rows * (width * width + height * height)
    return BlockEstimate(
        block.name, layer.kind, width * layer.groups, height * layer.groups, positions, memory, float(work)
    )
