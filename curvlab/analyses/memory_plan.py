"""MemoryPlan: which layers are averaged in which pass over the data, so that no pass takes more memory than there
is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from curvlab.analyses.batch_plan import BatchPlan
from curvlab.analyses.rows_seen import RowsSeen
from curvlab.capture.survey import Survey, components
from curvlab.curvatures.blocks import PreconditionerBlock
from curvlab.curvatures.curvature import Curvature
from curvlab.curvatures.room import room_within
from curvlab.document import numbers

PLANNED = 0.95
"""Share of the limit that is planned for."""

SHARES = (2, 4, 8, 16)
"""Parts of the memory that one matrix may take, tried in this order."""

Recipe = tuple[Curvature, Sequence[PreconditionerBlock]]
"""A recipe with its blocks."""


@dataclass(frozen=True)
class PassPlan:
    """One pass over the data.

    Attributes:
        layers: that are recorded; those that share parameters are in one pass.
        recipes: each with its blocks of these layers.
        held: bytes of all sums at its end, those of earlier passes whose spectra come later included.
        spectra: bytes that come on top while one layer after another is looked at.
    """

    layers: tuple[str, ...] = ()
    recipes: tuple[Recipe, ...] = ()
    held: int = 0
    spectra: int = 0


@dataclass(frozen=True)
class MemoryPlan:
    """What is averaged, and when.

    Attributes:
        passes: over the data, each for some of the layers; one without blocks where nothing is averaged.
        curvatures: the recipes.
        batch: examples at once, and their bytes.
        halves: whether averages over two halves of the examples are made beside those over all of them.
        left_out: layer -> which of its averages are left out, and why.
        before: bytes that the process holds before the first pass.
        limit: bytes that it may hold.
        sizes: layer -> bytes of all its sums; a block of several layers counts in the first.
    """

    passes: tuple[PassPlan, ...] = (PassPlan(),)
    curvatures: tuple[Curvature, ...] = ()
    batch: BatchPlan = field(default_factory=lambda: BatchPlan(1, 0))
    halves: bool = False
    left_out: Mapping[str, str] = field(default_factory=dict)
    before: int = 0
    limit: int = 0
    sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def peak(self) -> int:
        """The most bytes that the process is expected to hold."""
        return self.before + max(one.held + max(self.batch.bytes, one.spectra) for one in self.passes)

    def pass_of(self, layer: str) -> int | None:
        """The number of the pass that records a layer."""
        return next((number for number, one in enumerate(self.passes) if layer in one.layers), None)

    def has_block(self, curvature: str, layer: str) -> bool:
        """Whether the recipe of that name has a block of the layer, left out or not."""
        return layer in self.left_out or any(
            use.block.name == layer
            for one in self.passes
            for recipe, blocks in one.recipes
            if recipe.name == curvature
            for block in blocks
            for use in block.uses
        )


@dataclass(frozen=True)
class Budget:
    """What averages may take.

    Attributes:
        before: bytes that the process holds.
        limit: bytes that it may hold in all.
        given: whether somebody set the limit: without that, blocks beyond a recipe's `largest` are left out.
        again: whether the data can be passed over several times.
    """

    before: int
    limit: int
    given: bool
    again: bool = True

    @property
    def room(self) -> int:
        """What is left, but for what the allocator keeps of memory that was let go."""
        return max(0, int(PLANNED * self.limit) - self.before)


@dataclass(frozen=True)
class _Block:
    """A block of the recipe of that number, and the bytes of its sums, of its averages and of what is made for a
    spectrum."""

    number: int
    block: PreconditionerBlock
    size: int
    averages: int
    made: int


@dataclass(frozen=True)
class _Unit:
    """Layers that share parameters, the places of the first and the last of them, and what is averaged of them."""

    layers: tuple[str, ...]
    first: int
    last: int
    blocks: tuple[_Block, ...]

    @property
    def held(self) -> int:
        return sum(one.size for one in self.blocks)

    @property
    def spectra(self) -> int:
        """The averages over all examples and over the halves, and what is made of the largest matrix."""
        return sum(one.averages for one in self.blocks) + max((one.made for one in self.blocks), default=0)

    def without(self, block: _Block) -> _Unit:
        return replace(self, blocks=tuple(one for one in self.blocks if one is not block))


class _Reasons:
    """Layer -> what is left out of it -> bytes."""

    def __init__(self) -> None:
        self.sizes: dict[str, dict[str, int]] = {}

    def add(self, curvature: Curvature, one: _Block) -> None:
        what = curvature.contents or curvature.name
        for layer in dict.fromkeys(use.block.name for use in one.block.uses):
            sizes = self.sizes.setdefault(layer, {})
            sizes[what] = sizes.get(what, 0) + one.size

    def said(self, budget: Budget) -> dict[str, str]:
        found = {}
        for layer, sizes in self.sizes.items():
            said = ", ".join(f"{what} would take {numbers.size(held)}" for what, held in sizes.items()) + " of memory"
            if budget.given:
                said += f"; of {numbers.size(budget.limit)} the process holds {numbers.size(budget.before)}"
            found[layer] = said if budget.again else f"{said}, and the data can be read once only"
        return found


def roomiest_plan(
    found: Survey, curvatures: Sequence[Curvature], seen: RowsSeen, batch: BatchPlan, budget: Budget
) -> MemoryPlan:
    """The plan with the most room for one matrix that leaves nothing out: sketches are of what would not fit otherwise.

    Arguments as in `memory_plan`; the recipes are told their room.
    """
    for share in SHARES:
        for one in curvatures:
            one.room = room_within(budget.room // share)
        plan = memory_plan(found, curvatures, seen, batch, budget)
        if not plan.left_out:
            break
    return plan


def memory_plan(
    found: Survey, curvatures: Sequence[Curvature], seen: RowsSeen, batch: BatchPlan, budget: Budget
) -> MemoryPlan:
    """As many layers per pass as fit, in the model's order; a block that does not fit by itself is left out.

    Args:
        found: the layers.
        curvatures: the recipes.
        seen: rows of the data and their halves.
        batch: what a batch takes.
        budget: of memory.
    """
    reasons = _Reasons()
    units = [_fitting(unit, curvatures, batch, budget, reasons) for unit in _units(found, curvatures, seen)]
    sizes: dict[str, int] = {}
    for one in (one for unit in units for one in unit.blocks):
        name = one.block.uses[0].block.name
        sizes[name] = sizes.get(name, 0) + one.size
    if budget.again:
        passes = _packed([unit for unit in units if unit.blocks], curvatures, batch, budget.room)
    else:
        passes = [_squeezed([unit for unit in units if unit.blocks], curvatures, batch, budget, reasons)]
    return MemoryPlan(
        tuple(passes) or (PassPlan(),),
        tuple(curvatures),
        batch,
        seen.halves,
        reasons.said(budget),
        budget.before,
        budget.limit,
        sizes,
    )


def _units(found: Survey, curvatures: Sequence[Curvature], seen: RowsSeen) -> Iterator[_Unit]:
    place = {name: number for number, name in enumerate(found.blocks)}
    blocks: dict[str, list[_Block]] = {}
    for number, curvature in enumerate(curvatures):
        for block in curvature.profiled(found):
            one = _Block(number, block, seen.sums(curvature, block), *seen.spectra(curvature, block))
            blocks.setdefault(block.uses[0].block.name, []).append(one)
    for names in components(found.blocks):
        places = [place[name] for name in names]
        yield _Unit(
            tuple(names), min(places), max(places), tuple(one for name in names for one in blocks.get(name, ()))
        )


def _fitting(
    unit: _Unit, curvatures: Sequence[Curvature], batch: BatchPlan, budget: Budget, reasons: _Reasons
) -> _Unit:
    """The unit without blocks that do not fit, largest first."""
    for one in sorted(unit.blocks, key=lambda block: -block.size):
        largest = None if budget.given else curvatures[one.number].largest
        if unit.held + max(batch.bytes, unit.spectra) > budget.room or (largest is not None and one.size > largest):
            unit = unit.without(one)
            reasons.add(curvatures[one.number], one)
    return unit


def _packed(units: Sequence[_Unit], curvatures: Sequence[Curvature], batch: BatchPlan, room: int) -> list[PassPlan]:
    """Units in the model's order, a new pass where the next one does not fit beside those that are held."""
    passes, group, carried = list[PassPlan](), list[_Unit](), list[_Unit]()
    held = spectra = 0
    for unit in units:
        if group and held + unit.held + max(batch.bytes, spectra, unit.spectra) > room:
            passes.append(_pass(group, curvatures, held, spectra))
            carried = [one for one in (*carried, *group) if one.last >= unit.first]
            group, held, spectra = [], sum(one.held for one in carried), 0
        group.append(unit)
        held, spectra = held + unit.held, max(spectra, unit.spectra)
    return [*passes, _pass(group, curvatures, held, spectra)] if group else passes


def _squeezed(
    units: Sequence[_Unit], curvatures: Sequence[Curvature], batch: BatchPlan, budget: Budget, reasons: _Reasons
) -> PassPlan:
    """One pass, without the largest blocks where not all fit beside each other."""
    kept = {unit.layers: unit for unit in units}
    held = sum(unit.held for unit in units)
    for unit, one in sorted(((u, one) for u in units for one in u.blocks), key=lambda pair: -pair[1].size):
        spectra = max(other.spectra for other in kept.values())
        if held + max(batch.bytes, spectra) <= budget.room:
            break
        kept[unit.layers] = kept[unit.layers].without(one)
        held -= one.size
        reasons.add(curvatures[one.number], one)
    left = [unit for unit in kept.values() if unit.blocks]
    return _pass(left, curvatures, held, max((unit.spectra for unit in left), default=0))


def _pass(group: Sequence[_Unit], curvatures: Sequence[Curvature], held: int, spectra: int) -> PassPlan:
    blocks: list[list[PreconditionerBlock]] = [[] for _ in curvatures]
    for one in (one for unit in group for one in unit.blocks):
        blocks[one.number].append(one.block)
    layers = tuple(name for unit in group for name in unit.layers)
    return PassPlan(layers, tuple(zip(curvatures, blocks, strict=True)), held, spectra)
