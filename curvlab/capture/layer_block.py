"""LayerBlock and Survey: the affine maps of a model with their parameters, and what shares parameters with what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from curvlab.layers.layer import Layer, Unrolled


@dataclass
class LayerBlock:
    """One affine map with parameters of its own: a layer, or several uses that share all their parameters.

    Attributes:
        name: the module's name ("layer1.0.conv2"), or the parameter's for one used by hand.
        layer: the map (of its first use).
        parameters: role -> the parameter's name in the model.
        uses: names of all modules that share these parameters; the first is `name`.
        positions: T, positions per example in the surveyed input, over all uses.
        calls: how often it ran in one forward.
        tied: names of other blocks that share some parameter with this one.
        watched: whether hooks on modules alone would not see it: the functions that the network calls are watched.
    """

    name: str
    layer: Layer
    parameters: dict[str, str]
    uses: list[str] = field(default_factory=list)
    positions: int = 0
    calls: int = 0
    tied: list[str] = field(default_factory=list)
    watched: bool = False

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(p.numel() for p in self.layer.parameters.values())


@dataclass
class Survey:
    """The layers of a model.

    Attributes:
        modules: module name -> adapter, for a Tape.
        blocks: name -> LayerBlock, in the model's own order.
        refused: name of a module or parameter -> why it is in no block.
        block_of: name of a use -> name of its block.
        axes: name of a use -> axis of the examples in its input.
        uses: keys of all uses that were seen, of blocks that are left out too.
        look: places where a tensor holds examples that its shape alone could not tell of (`FirstLook`).
    """

    modules: dict[str, Layer | Unrolled]
    blocks: dict[str, LayerBlock]
    refused: dict[str, str]
    block_of: dict[str, str]
    axes: dict[str, int] = field(default_factory=dict)
    look: frozenset[str] = frozenset()
    uses: frozenset[str] = frozenset()


def use_key(use: str, layer: Layer) -> str:
    """The key of a use in `Survey.block_of`: a parameter can be used by hand in two ways, a module in one."""
    return f"{use}|{layer.kind}"


def components(blocks: Mapping[str, LayerBlock]) -> list[list[str]]:
    """Names of blocks grouped so that blocks which share a parameter, directly or through others, stand together."""
    groups: list[list[str]] = []
    seen: set[str] = set()
    order = {name: place for place, name in enumerate(blocks)}
    for name in blocks:
        if name in seen:
            continue
        group, queue = [], [name]
        while queue:
            current = queue.pop()
            if current in seen or current not in blocks:
                continue
            seen.add(current)
            group.append(current)
            queue.extend(blocks[current].tied)
        groups.append(sorted(group, key=order.__getitem__))
    return groups
