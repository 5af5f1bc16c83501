"""What an analysis will take before it is done: sizes, memory and work of every block, and what must be left out to
fit a budget."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import prod

from curvlab.capture.survey import LayerBlock, Survey
from curvlab.statistics.plan import Plan

_FLOAT64 = 8


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


def estimate_blocks(survey: Survey, plan: Plan, examples: int) -> list[BlockEstimate]:
    """One estimate per block, in the model's order."""
    return [_block(block, plan, examples) for block in survey.blocks.values()]


def statistic_bytes(block: LayerBlock, plan: Plan) -> dict[str, int]:
    """Bytes that each statistic of a block holds until the end: its factors in float64, thrice with the halves' and
    their sum; without what the plan leaves out."""
    layer, copies = block.layer, 3 if plan.halves else 1
    width, per = layer.in_features + layer.biased, _FLOAT64 * copies
    held: dict[str, int] = {}
    if plan.features or plan.output_gradients:
        one_hot = layer.kind == "Embedding"
        held["features"] = per * layer.groups * (width if one_hot else width * width)
    if plan.output_gradients and plan.fisher_type != "forward-only":
        held["output_gradients"] = per * layer.groups * layer.out_features**2
    if plan.tensors is not None and plan.fisher_type != "forward-only":
        held["tensors"] = per * sum(d * d for role in layer.parameters for d in layer.modes(role))
    if plan.exact:
        held["exact"] = _FLOAT64 * block.size**2
    return {kind: size for kind, size in held.items() if all(plan.wants(kind, name) for name in _names(block, kind))}


def leave_out(survey: Survey, plan: Plan, budget: int | None) -> tuple[Plan, dict[str, str]]:
    """The plan without the statistics that do not fit into `budget` bytes, largest first; and the reason for each
    block.

    A table factor of (vocabulary)² entries is left out even without a budget once it passes 2 GiB.
    """
    limit = budget if budget is not None else 2**62
    held = [(size, name, kind) for name, b in survey.blocks.items() for kind, size in statistic_bytes(b, plan).items()]
    total, skip = sum(size for size, _, _ in held), {k: set(v) for k, v in plan.skip.items()}
    reasons: dict[str, list[str]] = {}
    for size, name, kind in sorted(held, reverse=True):
        if total <= limit and (size <= 2 * 2**30 or kind != "tensors"):
            continue
        skip.setdefault(kind, set()).update(_names(survey.blocks[name], kind))
        reasons.setdefault(name, []).append(f"{_WHAT[kind]} would take {gibibytes(size)}")
        total -= size
    frozen = {kind: frozenset(names) for kind, names in skip.items()}
    return replace(plan, skip=frozen), {name: f"{', '.join(parts)} of memory" for name, parts in reasons.items()}


_WHAT = {
    "features": "the input factor",
    "output_gradients": "the gradient factor",
    "tensors": "tensor-normal factors",
    "exact": "the exact block",
}


def _names(block: LayerBlock, kind: str) -> Iterable[str]:
    """What the plan's `skip` calls a statistic of the block: tensors go by the parameters' names."""
    return block.parameters.values() if kind == "tensors" else (block.name,)


def gibibytes(size: float) -> str:
    """A size for a person."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def _block(block: LayerBlock, plan: Plan, examples: int) -> BlockEstimate:
    layer, positions = block.layer, max(1, block.positions)
    width, height = layer.in_features + layer.biased, layer.out_features
    rows = examples * positions * layer.groups
    work = rows * (width * width + height * height + 3 * width * height)
    if plan.tensors is not None:
        shapes = [layer.modes(role) for role in layer.parameters]
        work += examples * sum(prod(shape) * sum(shape) for shape in shapes if positions > 1)
        work += rows * (width * width + height * height)
    memory = sum(statistic_bytes(block, plan).values())
    return BlockEstimate(
        block.name, layer.kind, width * layer.groups, height * layer.groups, positions, memory, float(work)
    )
