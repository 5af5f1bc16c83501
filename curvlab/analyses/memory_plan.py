"""MemoryPlan: the recipes of a pass over the data and their blocks, without those that do not fit the memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from curvlab.capture.survey import Survey
from curvlab.curvatures.blocks import PreconditionerBlock
from curvlab.curvatures.curvature import Curvature
from curvlab.document import numbers

Recipe = tuple[Curvature, Sequence[PreconditionerBlock]]
"""A recipe with its blocks."""


@dataclass(frozen=True)
class MemoryPlan:
    """What a pass averages.

    Attributes:
        recipes: each with the blocks that are averaged.
        halves: whether averages over two halves of the examples are made beside those over all of them.
        left_out: layer -> which of its averages are left out, and why.
    """

    recipes: tuple[Recipe, ...] = ()
    halves: bool = False
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def curvatures(self) -> tuple[Curvature, ...]:
        """The recipes alone."""
        return tuple(curvature for curvature, _ in self.recipes)

    def bytes(self, curvature: Curvature, block: PreconditionerBlock) -> int:
        """What the averages of a block take until the end: in float64, thrice with the halves' and their sum."""
        copies = 3 if self.halves and curvature.halved and not curvature.of_batches else 1
        return copies * curvature.bytes(block)

    def has_block(self, curvature: str, layer: str) -> bool:
        """Whether the recipe of that name has a block of the layer, left out or not."""
        return layer in self.left_out or any(
            use.block.name == layer
            for one, blocks in self.recipes
            if one.name == curvature
            for block in blocks
            for use in block.uses
        )

    def memory(self) -> dict[str, int]:
        """Layer -> bytes of all its averages; a block of several layers counts in the first."""
        held: dict[str, int] = {}
        for curvature, blocks in self.recipes:
            for block in blocks:
                layer = block.uses[0].block.name
                held[layer] = held.get(layer, 0) + self.bytes(curvature, block)
        return held


def memory_plan(found: Survey, curvatures: Sequence[Curvature], halves: bool, budget: int | None) -> MemoryPlan:
    """The blocks of all recipes but those that do not fit into `budget` bytes, largest first.

    Without a budget those beyond the recipe's `largest` are left out: of a table a matrix of (vocabulary)² entries.
    """
    everything = MemoryPlan(tuple((one, one.profiled(found)) for one in curvatures), halves)
    held = [
        (everything.bytes(curvature, block), place, block.name)
        for place, (curvature, blocks) in enumerate(everything.recipes)
        for block in blocks
    ]
    total, out = sum(size for size, _, _ in held), set[tuple[int, str]]()
    reasons: dict[str, dict[str, int]] = {}
    for size, place, name in sorted(held, reverse=True):
        curvature, blocks = everything.recipes[place]
        largest = curvature.largest if budget is None else None
        if (budget is None or total <= budget) and (largest is None or size <= largest):
            continue
        out.add((place, name))
        total -= size
        what = curvature.contents or curvature.name
        uses = next(block for block in blocks if block.name == name).uses
        for layer in dict.fromkeys(use.block.name for use in uses):
            sizes = reasons.setdefault(layer, {})
            sizes[what] = sizes.get(what, 0) + size
    recipes = tuple(
        (curvature, [block for block in blocks if (place, block.name) not in out])
        for place, (curvature, blocks) in enumerate(everything.recipes)
    )
    return MemoryPlan(recipes, halves, {layer: _said(sizes) for layer, sizes in reasons.items()})


def _said(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{what} would take {numbers.size(held)}" for what, held in sizes.items()) + " of memory"
