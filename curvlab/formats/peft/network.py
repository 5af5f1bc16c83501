"""An adapter on its base: the base's network, with the update beside each adapted layer or added to its weight."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from curvlab.errors import CheckpointError
from curvlab.formats.checkpoint import Checkpoint
from curvlab.formats.format import Network
from curvlab.formats.peft.low_rank import LowRank, merged
from curvlab.formats.peft.settings import read_settings
from curvlab.formats.raw_checkpoint import RawCheckpoint
from curvlab.quoting import listed, quoted

_DOWN = re.compile(r"(?P<layer>.+)\.lora_(?P<embedding>embedding_)?A(?P<rest>(?:\.\w+)?)")
_PREFIX = "base_model.model."


class Update(NamedTuple):
    """The low-rank update of one layer: its name, and the names of A and B in the file."""

    layer: str
    down: str
    up: str


def own_base(path: Path, raw: RawCheckpoint, max_memory: int | None) -> Network:
    """The network on a base that lies in the adapter's own folder, or a note that says what the adapter belongs to.

    A name on a server, or a path elsewhere, is not followed: it is what the file says, and not the user.
    """
    from curvlab.formats.load import load

    settings = read_settings(path)
    try:
        own = path / settings.base if settings.base else None
        inside = own is not None and own.is_dir() and path.resolve() in own.resolve().parents
    except (OSError, ValueError):
        inside = False
    if own is None or not inside:
        named = f"its base {quoted(settings.base)}" if settings.base else "its base"
        return Network(notes=(f"weights only: the adapter adds to {named}; --base DIR gives the full profile",))
    return on_base(path, raw, load(own, max_memory=max_memory), False)


def on_base(path: Path, raw: RawCheckpoint, base: Checkpoint, merge: bool) -> Network:
    """The base's network with the adapter.

    Args:
        path: the adapter's folder.
        raw: its tensors.
        base: the model that it adapts.
        merge: whether W + c B A becomes the weight of a layer; else A and B are layers beside it.

    Raises:
        CheckpointError: another kind of adapter, a base without a network, or one that does not fit.
    """
    settings = read_settings(path)
    if settings.kind != "LORA":
        raise _unknown(path, f"of the kind {quoted(settings.kind)}")
    if settings.other:
        raise _unknown(path, f"with {listed(settings.other)}")
    module = base.module
    if module is None:
        raise CheckpointError(f"the base {quoted(base.path)} gives no network", "; ".join(base.notes))
    updates, ranks = list(_updates(raw)), set()
    taken = {name for update in updates for name in (update.down, update.up)}
    with torch.no_grad():
        replaced = _replace(path, module, raw, taken)
        for update in updates:
            down, up = raw.tensors[update.down], raw.tensors[update.up]
            ranks.add(len(down))
            _adapt(path, module, update.layer, down, up, settings.scale(update.layer, len(down)), merge)
    if not ranks:
        raise CheckpointError(f"{quoted(path)} holds no low-rank update", f"its tensors are {listed(list(raw.specs))}")
    made_by = f"{base.architecture}, with the adapter's updates of rank {', '.join(map(str, sorted(ranks)))}"
    notes = [f"the adapter is {'added to' if merge else 'beside'} the weights of {quoted(base.path)}"]
    notes += [f"weights that the adapter replaces: {listed(replaced)}"] if replaced else []
    folders = () if base.path is None else (base.path if base.path.is_dir() else base.path.parent,)
    return Network(module.eval(), f"{made_by}{', merged' if merge else ''}", (*base.notes, *notes), folders=folders)


def _updates(raw: RawCheckpoint) -> Iterator[Update]:
    for name in raw.specs:
        plain = name.removesuffix(".weight")
        found = _DOWN.fullmatch(plain)
        if found is None:
            continue
        middle = f"lora_{found['embedding'] or ''}B{found['rest']}"
        up = f"{found['layer']}.{middle}{name.removeprefix(plain)}"
        if up in raw.specs:
            yield Update(found["layer"].removeprefix(_PREFIX), name, up)


def _layer(path: Path, module: nn.Module, name: str) -> nn.Module:
    try:
        return module.get_submodule(name)
    except AttributeError:
        what = f"the adapter {quoted(path)} changes the layer {quoted(name)}"
        do = "give the base that the adapter was trained on"
        raise CheckpointError(what, f"the base ({type(module).__name__}) has none of that name", do) from None


def _adapt(path: Path, module: nn.Module, name: str, down: Tensor, up: Tensor, scale: float, merge: bool) -> None:
    """Change one layer of the base."""
    layer = _layer(path, module, name)
    try:
        if merge:
            merged(layer, down, up, scale)
        else:
            parent, _, own = name.rpartition(".")
            setattr(module.get_submodule(parent), own, LowRank(layer, down, up, scale))
    except ValueError as error:
        raise CheckpointError(f"the adapter {quoted(path)} does not fit {quoted(name)}", str(error)) from None


def _replace(path: Path, module: nn.Module, raw: RawCheckpoint, taken: set[str]) -> list[str]:
    """Put in what the adapter holds whole: biases and `modules_to_save`. Names of what was replaced."""
    parameters, done = dict(module.named_parameters()), []
    for name in raw.specs:
        if name in taken:
            continue
        plain = re.sub(r"\.(base_layer|modules_to_save(\.default)?)(?=\.)", "", name.removeprefix(_PREFIX))
        if plain not in parameters or parameters[plain].shape != raw.specs[name].shape:
            what = f"the adapter {quoted(path)} holds {quoted(name)}"
            raise CheckpointError(what, "it is no low-rank update, and no weight of the base has its name and shape")
        parameters[plain].copy_(raw.tensors[name])
        done.append(plain)
    return done


def _unknown(path: Path, kind: str) -> CheckpointError:
    return CheckpointError(
        f"{quoted(path)} is an adapter {kind}", "curvlab knows LoRA", "merge it into its base with PEFT, and give that"
    )
