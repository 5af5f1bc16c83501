"""Survey: one small forward of the model that finds its blocks, what shares parameters with what, and what cannot be
analysed and why."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from curvlab.capture.functional import FunctionalUses
from curvlab.capture.layer_block import LayerBlock, Survey, components, use_key
from curvlab.capture.model_inputs import Inputs, batch_size, tensors_of
from curvlab.capture.preserve import frozen, preserve
from curvlab.capture.sample import Call
from curvlab.capture.tape import Tape
from curvlab.capture.verified import unexplained
from curvlab.errors import UnsupportedLayer
from curvlab.layers.layer import Layer, Unrolled, adapt, adapted
from curvlab.layers.registered import load_layers

__all__ = ["LayerBlock", "Survey", "adapters", "components", "first_examples", "survey", "use_key"]


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
        frozen(model),
        torch.enable_grad(),  # what the model computes without is told apart; nothing asks for a gradient
    ):
        tape.run(inputs)
        watcher = tape.watcher
        assert watcher is not None
        idle = _idle(modules, found, watcher)
    examples = batch_size(inputs)
    blocks, block_of = _blocks(model, found, idle, examples)
    _tie(blocks)
    _refuse_hidden_uses(model, blocks, refusals)
    seen = {above for use in (*found, *refusals) for above in ("", *_above(use))}
    covered = {id(p) for block in blocks.values() for p in block.layer.parameters.values()}
    for name, made in modules.items():
        if covered.issuperset(map(id, _parameters(made))):
            continue
        if name not in found and name not in idle and name not in seen:
            refusals.setdefault(name, "it did not run as a module when the model was called")
    refused |= refusals
    for name in watcher.constant - {p for block in blocks.values() for p in block.parameters.values()}:
        refused.setdefault(name, "the network uses it where no gradient comes back")
    for name, why in _without_adapter(model, blocks).items():
        refused.setdefault(name, why)
    uses = frozenset(block_of)
    if layers:
        blocks = {name: b for name, b in blocks.items() if any(fnmatch.fnmatchcase(name, glob) for glob in layers)}
    block_of = {use: name for use, name in block_of.items() if name in blocks}
    axes = {use: calls[0].axis for use, calls in found.items()}
    surveyed = Survey(modules, blocks, refused, block_of, axes, frozenset(watcher.look.places), uses)
    _refuse_unexplained(surveyed, unexplained(model, surveyed, inputs))
    return surveyed


def _refuse_unexplained(found: Survey, wrong: Mapping[str, float]) -> None:
    """Blocks of parameters whose gradient is not what their uses say leave the table."""
    for name in [n for n, b in found.blocks.items() if not wrong.keys().isdisjoint(b.parameters.values())]:
        parameter = next(p for p in found.blocks[name].parameters.values() if p in wrong)
        why = f"the uses of {parameter} that were seen differ from its gradient by {wrong[parameter]:.1%} of it"
        found.refused.setdefault(parameter, why)
        found.refused.setdefault(name, why)
        del found.blocks[name]
    found.block_of = {use: name for use, name in found.block_of.items() if name in found.blocks}


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
        registered: type[nn.Module] = next(base for base in type(module).__mro__ if base in adapt.registry)
        if type(module).forward is not registered.forward:
            continue  # the operations that its own forward calls are watched
        try:
            made = adapt(module)
        except UnsupportedLayer as reason:
            owner, refused[name] = name, str(reason)
            continue
        if {id(p) for p in _parameters(made)} <= {id(p) for p in module.parameters()}:
            owner, modules[name] = name, made
        # A weight that is computed from other parameters is followed from there.
    return modules, refused


def _parameters(made: Layer | Unrolled) -> list[Tensor]:
    layers = [made] if isinstance(made, Layer) else list(made.layers.values())
    return [p for layer in layers for p in layer.parameters.values()]


def _idle(
    modules: Mapping[str, Layer | Unrolled], found: Mapping[str, list[Call]], watcher: FunctionalUses
) -> dict[str, tuple[Layer, bool]]:
    """Experts that these examples were not routed to, while others beside them ran: the layer, and whether functions
    have to be watched to see it."""
    idle: dict[str, tuple[Layer, bool]] = {}
    for other in watcher.layers.stacks.values():
        name, layer = other(0)
        for place in range(next(iter(layer.parameters.values())).shape[0]):
            name, layer = other(place)
            if name not in found:
                idle[name] = layer, True
    ran = {pattern for name in found for pattern in _patterns(name)}
    for name, made in modules.items():
        if name not in found and isinstance(made, Layer) and not ran.isdisjoint(_patterns(name)):
            idle[name] = made, False
    return idle


def _patterns(name: str) -> list[str]:
    """The name with each of its numbers left open."""
    parts = name.split(".")
    return [".".join([*parts[:i], "*", *parts[i + 1 :]]) for i, part in enumerate(parts) if part.isdigit()]


def _blocks(
    model: nn.Module, found: Mapping[str, list[Call]], idle: Mapping[str, tuple[Layer, bool]], examples: int
) -> tuple[dict[str, LayerBlock], dict[str, str]]:
    names = {id(p): name for name, p in model.named_parameters()}
    order = {name: i for i, name in enumerate(names.values())}
    owners = _owners(model, found)
    blocks: dict[tuple[object, ...], LayerBlock] = {}
    block_of: dict[str, str] = {}
    taken: set[str] = set()
    for use, calls in found.items():
        for layer in dict.fromkeys(call.layer for call in calls):
            ids = [id(p) for p in layer.parameters.values()]
            sizes = (layer.kind, layer.by_rows, layer.groups, layer.out_features, layer.in_features)
            key = (*sizes, layer.road, *layer.view_key, *ids)
            if key not in blocks:
                name = (
                    owners.get(frozenset(ids), use) if calls[0].watched and layer.of_all and layer.road is None else use
                )
                if name in taken:
                    name = use
                name = name if name not in taken else f"{use}@{layer.kind.lower()}"
                taken.add(name)
                parameters = {role: names[id(p)] for role, p in layer.parameters.items()}
                blocks[key] = LayerBlock(name, layer, parameters)
            block = blocks[key]
            own = [call for call in calls if call.layer is layer]
            block.uses.append(use)
            block.calls += len(own)
            block.positions += sum(call.rows for call in own) // examples
            block.watched |= any(call.watched for call in own)
            block_of[use_key(use, layer)] = block.name
    for use, (layer, watched) in idle.items():
        if use not in taken:
            parameters = {role: names[id(p)] for role, p in layer.parameters.items()}
            blocks[(use,)] = LayerBlock(use, layer, parameters, [use], calls=1, watched=watched)
            block_of[use_key(use, layer)] = use
    ordered = sorted(
        blocks.values(), key=lambda b: (min(order[name] for name in b.parameters.values()), b.layer.place or 0)
    )
    return {block.name: block for block in ordered}, block_of


def _owners(model: nn.Module, found: Mapping[str, list[Call]]) -> dict[frozenset[int], str]:
    """The parameters of a module, all of them -> its name, of modules that did not run as a layer."""
    owners: dict[frozenset[int], str] = {}
    for name, module in model.named_modules():
        own = frozenset(id(p) for p in module.parameters(recurse=False))
        if own and name and name not in found:
            owners.setdefault(own, name)
    return owners


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
