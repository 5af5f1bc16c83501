"""What an analysis will take before it is done: passes over the data, memory, work and time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import torch

from curvlab.analyses.data_pass import DataPass
from curvlab.analyses.layer_rows import LayerRow
from curvlab.capture.survey import LayerBlock
from curvlab.curvatures.tensor_normal import TensorNormalCurvature
from curvlab.layers.embedding import EmbeddingLayer

if TYPE_CHECKING:
    from curvlab.analyses.analysis_plan import AnalysisPlan

EIGENVALUES = 4.0
"""Multiply-adds of the eigenvalues of a matrix of side 1, counted at the speed of a matrix product."""
SIDE = 512
"""Of the product that the machine's speed is measured with: a few milliseconds."""


@dataclass(frozen=True)
class BlockEstimate:
    """One block: i inputs (with the bias's 1), o outputs, T positions; bytes of its sums; multiplications for all
    examples; the number of the pass that records it, from 1, or None for none. For a matrix that an analysis looks at,
    its two sides, and bytes held while it does."""

    name: str
    kind: str
    input_size: int
    output_size: int
    positions: int
    memory: int
    work: float
    pass_number: int | None = None


@dataclass(frozen=True)
class Estimate:
    """The answer to `--dry-run`: nothing has been computed but a few examples.

    Attributes:
        blocks: every layer, in the model's order, then matrices that analyses look at one after another.
        memory: the most bytes that the process will hold: what it holds now, a batch, and the sums of one pass with the
            spectra made of them.
        work: multiply-adds.
        notes: sentences for the user.
        passes: over the data.
        batch_size: examples at once; None without data.
        limit: bytes that the process may hold; None without data.
        seconds: on this machine as it is now, to within a factor of about two.
    """

    blocks: tuple[BlockEstimate, ...]
    memory: int
    work: float
    notes: tuple[str, ...] = ()
    passes: int = 0
    batch_size: int | None = None
    limit: int | None = None
    seconds: float | None = None


def estimate_of(plan: AnalysisPlan) -> Estimate:
    """What a plan holds and does, block by block."""
    in_turn = [block for one in plan.chosen for block in one.estimate(plan)]
    extra = max((block.memory for block in in_turn), default=0)  # one after another
    run = plan.data_pass
    if run is None:
        work = sum(block.work for block in in_turn)
        return Estimate(tuple(in_turn), extra, work, tuple(plan.notes), seconds=work / _speed())
    layers = layer_estimates(plan.rows, run)
    blocks = (*layers, *in_turn)
    work = sum(block.work for block in blocks)
    notes = (*plan.notes, *(f"{name}: {why}" for name, why in plan.left_out.items()))
    passes, examples = len(run.plan.passes), run.source.samples or 0
    seconds = passes * examples * run.seconds + (work + _spectra(plan.rows, run)) / _speed()
    peak = max(run.plan.peak, run.plan.before + max(one.held for one in run.plan.passes) + extra)
    return Estimate(blocks, peak, work, notes, passes, run.plan.batch.size, run.plan.limit, seconds)


def layer_estimates(rows: Sequence[LayerRow], run: DataPass) -> list[BlockEstimate]:
    """One estimate per row of the report; what was never recorded has weights alone."""
    contracted: dict[str, list[tuple[int, ...]]] = {}
    for curvature, blocks in (recipe for one in run.plan.passes for recipe in one.recipes):
        for tensor in (one for one in blocks if isinstance(curvature, TensorNormalCurvature)):
            contracted.setdefault(tensor.uses[0].block.name, []).append(tensor.shape)
    found = []
    for row in rows:
        if row.block is None:
            found.append(BlockEstimate(row.name, f"{row.kind}, weights only", 0, 0, 0, 0, 0.0))
            continue
        number = run.plan.pass_of(row.block.name)
        memory = run.plan.sizes.get(row.block.name, 0)
        shapes = contracted.get(row.block.name, [])
        found.append(_layer(row.block, memory, shapes, run.source.samples or 0, None if number is None else number + 1))
    return found


def _layer(
    block: LayerBlock, memory: int, contracted: Sequence[tuple[int, ...]], examples: int, number: int | None
) -> BlockEstimate:
    layer, positions = block.layer, max(1, block.positions)
    width, height = layer.in_features + layer.biased, layer.out_features
    rows = examples * positions * layer.groups
    own = 1 if isinstance(layer, EmbeddingLayer) else width  # one-hot inputs are counted, not multiplied
    sides = [min(rows, side) for side in (own, height)]  # of few rows no product is made until their spectrum
    work = float(rows * (sides[0] * own + sides[1] * height + 3 * own * height))
    for shape in contracted:  # the modes of a parameter tensor, each by itself
        for side in shape:
            columns = min(positions, prod(shape) // max(side, 1)) * examples
            work += min(columns, side) * columns * side + rows * min(positions, side) * side
    return BlockEstimate(
        block.name, layer.kind, width * layer.groups, height * layer.groups, positions, memory, work, number
    )


def _spectra(rows: Sequence[LayerRow], run: DataPass) -> float:
    """Multiply-adds of eigenvalues: of A and G and of what normalising makes of A, of all examples and of the halves;
    and of every weight's smaller side."""
    total, examples = 0.0, run.source.samples or 0
    for row in rows:
        if row.block is None:
            continue
        layer, seen = row.block.layer, examples * max(1, row.block.positions)
        own = 1 if isinstance(layer, EmbeddingLayer) else layer.in_features
        matrices = ((own, 5), (layer.out_features, 2), (own, 1))
        total += sum(2 * count * layer.groups * min(side, seen) ** 3 for side, count in matrices)
        total += min(layer.in_features, layer.out_features) ** 3 * layer.groups
    return EIGENVALUES * total


def _speed() -> float:
    """Multiply-adds in a second of a product in float64."""
    x = torch.ones(SIDE, SIDE, dtype=torch.float64)
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        x @ x
        best = min(best, time.perf_counter() - start)
    return SIDE**3 / max(best, 1e-9)
