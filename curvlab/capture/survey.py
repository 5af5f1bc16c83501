"""Survey: one small forward of the model that finds its blocks, what shares parameters with what, and what cannot be
analysed and why."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from curvlab.capture.model_inputs import Inputs, batch_size, tensors_of
from curvlab.capture.preserve import preserve
from curvlab.capture.sample import Call
from curvlab.capture.tape import Tape
from curvlab.errors import UnsupportedLayer
from curvlab.layers.layer import Layer, Unrolled, adapt, adapted
from curvlab.layers.registered import load_layers


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
    """

    name: str
    layer: Layer
    parameters: dict[str, str]
    uses: list[str] = field(default_factory=list)
    positions: int = 0
    calls: int = 0
    tied: list[str] = field(default_factory=list)

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
    """

    modules: dict[str, Layer | Unrolled]
    blocks: dict[str, LayerBlock]
    refused: dict[str, str]
    block_of: dict[str, str]
    axes: dict[str, int] = field(default_factory=dict)


def survey(model: nn.Module, inputs: Inputs, layers: Sequence[str] = ()) -> Survey:
    """Find the blocks of `model` by one forward on `inputs` (a few examples), without gradients and leaving the
    model as it was.

    Args:
        model: the network, in the mode it is to be analysed in.
        inputs: a small batch.
        layers: globs over block names; none means all.
    """
    with preserve(model):  # spectral norm iterates where a weight is read
        modules, refused = adapters(model)
    found: dict[str, list[Call]] = {}
    refusals: dict[str, str] = {}
    with (
        Tape(
            model, modules, lambda name, call: found.setdefault(name, []).append(call), None, refusals.setdefault
        ) as tape,
        preserve(model),
        torch.no_grad(),
    ):
        tape.run(inputs)
    examples = batch_size(inputs)
    blocks, block_of = _blocks(model, found, examples)
    _tie(blocks)
    _refuse_hidden_uses(model, blocks, refusals)
    seen = {above for use in (*found, *refusals) for above in ("", *_above(use))}
    for name in modules:
        if name not in found and name not in seen:
            refusals.setdefault(name, "it did not run as a module when the model was called")
    refused |= refusals
    for name, why in _without_adapter(model, blocks).items():
        refused.setdefault(name, why)
    if layers:
        blocks = {name: b for name, b in blocks.items() if any(fnmatch.fnmatchcase(name, glob) for glob in layers)}
    block_of = {use: name for use, name in block_of.items() if name in blocks}
    axes = {use: calls[0].axis for use, calls in found.items()}
    return Survey(modules, blocks, refused, block_of, axes)


def _above(name: str) -> list[str]:
    """The names of all modules that hold this one, but for the model's."""
    return [name[:place] for place, letter in enumerate(name) if letter == "."]


def adapters(model: nn.Module) -> tuple[dict[str, Layer | Unrolled], dict[str, str]]:
    """Module name -> adapter for every module of a registered type that has parameters; and the reasons of those
    refused."""
    load_layers()
    modules: dict[str, Layer | Unrolled] = {}
    refused: dict[str, str] = {}
    owner: str | None = None
    for name, module in model.named_modules():
        if owner is not None and (owner == "" or name.startswith(f"{owner}.")):
            continue  # what is inside a module follows it at once
        if not adapted(module) or next(module.parameters(), None) is None:
            continue
        owner = name
        try:
            modules[name] = _checked(adapt(module), module)
        except UnsupportedLayer as reason:
            refused[name] = str(reason)
    return modules, refused


def _checked(made: Layer | Unrolled, module: nn.Module) -> Layer | Unrolled:
    """The adapter, if it speaks for this module: its forward is that of the registered type, its parameters its own."""
    registered: type[nn.Module] = next(base for base in type(module).__mro__ if base in adapt.registry)
    if type(module).forward is not registered.forward:
        raise UnsupportedLayer(
            f"{type(module).__name__} has a forward of its own",
            f"it need not compute what {registered.__name__} does",
            "register an adapter for it",
        )
    own = {id(p) for p in module.parameters()}
    for layer in [made] if isinstance(made, Layer) else made.layers.values():
        computed = [role for role, p in layer.parameters.items() if id(p) not in own]
        if computed:
            raise UnsupportedLayer(
                f"the {computed[0]} of {type(module).__name__} is computed from other parameters",
                "its curvature with respect to them is not that of an affine map",
            )
    return made


def _blocks(
    model: nn.Module, found: Mapping[str, list[Call]], examples: int
) -> tuple[dict[str, LayerBlock], dict[str, str]]:
    names = {id(p): name for name, p in model.named_parameters()}
    order = {name: i for i, name in enumerate(names.values())}
    blocks: dict[tuple[object, ...], LayerBlock] = {}
    block_of: dict[str, str] = {}
    taken: set[str] = set()
    for use, calls in found.items():
        for layer in dict.fromkeys(call.layer for call in calls):
            key = (layer.groups, layer.out_features, layer.in_features, *(id(p) for p in layer.parameters.values()))
            if key not in blocks:
                name = use if use not in taken else f"{use}@{layer.kind.lower()}"
                taken.add(name)
                parameters = {role: names[id(p)] for role, p in layer.parameters.items()}
                blocks[key] = LayerBlock(name, layer, parameters)
            block = blocks[key]
            own = [call for call in calls if call.layer is layer]
            block.uses.append(use)
            block.calls += len(own)
            block.positions += sum(call.rows for call in own) // examples
            block_of[use_key(use, layer)] = block.name
    ordered = sorted(blocks.values(), key=lambda b: min(order[name] for name in b.parameters.values()))
    return {block.name: block for block in ordered}, block_of


def use_key(use: str, layer: Layer) -> str:
    """The key of a use in `Survey.block_of`: a parameter can be used by hand in two ways, a module in one."""
    return f"{use}|{layer.kind}"


def _tie(blocks: Mapping[str, LayerBlock]) -> None:
    users: dict[str, list[str]] = {}
    for block in blocks.values():
        for parameter in block.parameters.values():
            users.setdefault(parameter, []).append(block.name)
    order = {name: place for place, name in enumerate(blocks)}
    for block in blocks.values():
        sharing = {name for parameter in block.parameters.values() for name in users[parameter]} - {block.name}
        block.tied = sorted(sharing, key=order.__getitem__)


def _refuse_hidden_uses(model: nn.Module, blocks: dict[str, LayerBlock], refusals: dict[str, str]) -> None:
    """A block whose parameter is also used in an unknown way would be silently wrong: it leaves the table with that
    reason."""
    for name in [n for n, b in blocks.items() if any(p in refusals for p in b.parameters.values())]:
        parameter = next(p for p in blocks[name].parameters.values() if p in refusals)
        refusals.setdefault(name, f"its parameter {parameter} is also {refusals[parameter]}")
        del blocks[name]
    parameters = {n for n, _ in model.named_parameters()}
    uncovered = parameters - {p for b in blocks.values() for p in b.parameters.values()}
    for name in [n for n in refusals if n in parameters and n not in uncovered]:
        del refusals[name]


def _without_adapter(model: nn.Module, blocks: Mapping[str, LayerBlock]) -> dict[str, str]:
    """Modules of unknown types that hold parameters of no block, and the sentence that says so."""
    covered = {parameter for block in blocks.values() for parameter in block.parameters.values()}
    reasons: dict[str, str] = {}
    for name, module in model.named_modules():
        own = [f"{name}.{p}" if name else p for p, _ in module.named_parameters(recurse=False)]
        if not adapted(module) and any(parameter not in covered for parameter in own):
            try:
                adapt(module)
            except UnsupportedLayer as reason:
                reasons[name] = str(reason)
    return reasons


def first_examples(inputs: Inputs, count: int) -> Inputs:
    """The first `count` examples of a batch."""
    if isinstance(inputs, Tensor):
        return inputs[:count]
    size = batch_size(inputs)
    if any(p.ndim and p.shape[0] != size for p in tensors_of(inputs)):
        return inputs  # some part has its examples elsewhere (a recurrent state): better a large look than a wrong cut

    def cut(part: Any) -> Any:
        if isinstance(part, Mapping):
            return {key: cut(value) for key, value in part.items()}
        if isinstance(part, tuple | list):
            return tuple(cut(value) for value in part)
        return part[:count] if isinstance(part, Tensor) and part.ndim else part

    found: Inputs = cut(inputs)
    return found


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
