"""`curvlab.load`: detect the format, read it safely, infer its layers, build its network where that is possible."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from curvlab.document.numbers import size
from curvlab.errors import CheckpointError, out_of_memory
from curvlab.formats.checkpoint import Checkpoint
from curvlab.formats.detect import Found, detect
from curvlab.formats.format import FORMATS, Format, Network
from curvlab.formats.names import natural_key, without_wrappers
from curvlab.quoting import listed, quoted, reason

if TYPE_CHECKING:
    from torch import Tensor, nn

    from curvlab.formats.architecture import Architecture
    from curvlab.formats.inference.fold import Fold
    from curvlab.formats.inference.fold_low_rank import Scale
    from curvlab.formats.lazy_tensors import LazyTensors
    from curvlab.formats.raw_checkpoint import RawCheckpoint

LARGE_IDLE = 2 * 2**30
"""Bytes of a network's weights in float32, beside those of the file."""
_GIVE = "--architecture package.module:callable"


def load(
    path: str | os.PathLike[str],
    *,
    architecture: Architecture | None = None,
    trust: bool = False,
    max_memory: int | None = None,
    base: str | os.PathLike[str] | None = None,
    merge: bool = False,
    idle: bool = False,
) -> Checkpoint:
    """A saved model: its tensors, its layers, and its network where the file or `architecture` gives one.

    No code from the file is run unless it is trusted. Tensors are read when asked for.

    Args:
        path: a model file, an `*.index.json`, a directory of Hugging Face, timm or a training run.
        architecture: `"package.module:callable"`, or a callable without arguments, that makes the network; `"hf"` for
            the config.json beside the weights, `"timm:NAME"` for a network of timm.
        trust: run the code of a TorchScript or torch.export archive, or the callable that a curvlab file names.
        max_memory: bytes that loading, and reading the largest tensor, may take; None for what the file itself
            warrants.
        base: of an adapter, the model that it changes.
        merge: whether the adapter is added to the base's weights; else its factors are layers beside them.
        idle: whether nothing will run the network: one of more than `LARGE_IDLE` is not made then.

    Raises:
        CheckpointError: one sentence on what the file is, why it cannot be read, and what to do.
        MemoryBudgetError: a tensor, or the network, needs more than `max_memory`.
    """
    from curvlab.formats.raw_checkpoint import check_budget

    path = Path(path)
    try:
        found = detect(path)
        path = found.path
        raw = _read(found, max_memory)
        check_budget(path, raw, max_memory)
        raw = _renamed(path, raw)
        if base is not None or merge:
            network = _on_base(path, raw, base, merge, max_memory)
        else:
            network = _network(path, raw, architecture, trust, max_memory, idle)
        return _checkpoint(path, _ordered(raw, network.module), network)
    except OSError as error:
        raise CheckpointError(f"{quoted(path)} cannot be read", reason(error)) from error
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        do = "close other programs, or use a machine with more memory"
        raise CheckpointError(f"{quoted(path)} cannot be loaded", "there is not enough memory", do) from error


def _read(found: Found, max_memory: int | None) -> RawCheckpoint:
    if found.format.read is None:
        what = f"{quoted(found.path)} is {found.format.what}"
        raise CheckpointError(what, "curvlab cannot read it", found.format.needs)
    raw = found.format.read(found.path, max_memory)
    if not raw.specs:
        raise CheckpointError(f"{quoted(found.path)} holds no tensors", do="give a file with the weights of a network")
    # A curvlab file that turns out to be a plain one says so itself.
    name = raw.format if raw.format in FORMATS else found.format.name
    return replace(raw, format=name, notes=(*found.notes, *raw.notes))


def _renamed(path: Path, raw: RawCheckpoint) -> RawCheckpoint:
    """Names without the prefixes of DataParallel and torch.compile."""
    from curvlab.formats.lazy_tensors import LazyTensors

    plain, removed = without_wrappers([*raw.specs, *raw.aliases])
    if not removed:
        return raw
    shorter = {stored_name: name for name, stored_name in plain.items()}
    return replace(
        raw,
        specs={shorter[name]: spec for name, spec in raw.specs.items()},
        tensors=LazyTensors({shorter[name]: raw.tensors.reader(name) for name in raw.tensors}),
        aliases={shorter[alias]: shorter[kept] for alias, kept in raw.aliases.items()},
        fop=None if raw.fop is None else raw.fop.renamed(shorter),
        tables=frozenset(shorter[name] for name in raw.tables),
        notes=(*raw.notes, f"taken off the names: {listed(removed)}"),
    )


def _network(
    path: Path,
    raw: RawCheckpoint,
    architecture: Architecture | None,
    trust: bool,
    max_memory: int | None,
    idle: bool,
) -> Network:
    from curvlab.formats.architecture import build_architecture, describe_architecture, load_weights

    needed = 4 * sum(prod(spec.shape) for spec in raw.specs.values())
    if architecture is None and idle and raw.data is None and needed > LARGE_IDLE:
        return Network(notes=(f"weights only: the network, {size(needed)}, is not made where no --data runs it",))
    if architecture is None:
        own = _own_network(path, raw, FORMATS[raw.format], trust, max_memory)
        if own.code is None:
            return own
        architecture = own.code
    if isinstance(architecture, str):
        for entry in FORMATS.values():
            if entry.named is not None and _has_prefix(architecture, entry.named.prefix):
                return entry.named.build(path, raw, architecture.removeprefix(entry.named.prefix), max_memory)
    module = load_weights(path, build_architecture(architecture), raw.tensors, raw.aliases)
    return Network(module, describe_architecture(architecture))


def _on_base(
    path: Path, raw: RawCheckpoint, base: str | os.PathLike[str] | None, merge: bool, max_memory: int | None
) -> Network:
    on_base = FORMATS[raw.format].on_base
    if on_base is None or base is None:
        what = "--base names the model that an adapter changes" if base is not None else "--merge is about an adapter"
        why = f"{quoted(path)} is {FORMATS[raw.format].what}" if on_base is None else "--base is missing"
        raise CheckpointError(what, why, "leave it out" if on_base is None else "give --base DIR")
    return on_base(path, raw, load(base, max_memory=max_memory), merge)


def _has_prefix(architecture: str, prefix: str) -> bool:
    """ "timm:" is followed by a name, "hf" stands alone."""
    return architecture.startswith(prefix) if prefix.endswith(":") else architecture == prefix


def _is_data(code: str) -> bool:
    """Whether a name stands for a description beside the file, such as "hf", and for no code."""
    return any(entry.named is not None and entry.named.prefix == code for entry in FORMATS.values())


def _own_network(path: Path, raw: RawCheckpoint, entry: Format, trust: bool, max_memory: int | None) -> Network:
    """What the file itself gives: a network, none with the reason, or with `trust` the name of its code."""
    if entry.network is None:
        return Network(notes=(f"the file holds weights only: {_GIVE} gives a full profile",))
    if entry.trust and not trust:
        what = f"the network of {entry.what} is code in the file"
        return Network(notes=(f"{what}: --trust runs it, for a full profile",))
    network = entry.network(path, raw, max_memory)
    if network.code is None or trust or _is_data(network.code):
        return network
    what = "the file names the code that makes its network"
    return Network(notes=(f"{what}: give --architecture {quoted(network.code)} to run it",))


def _ordered(raw: RawCheckpoint, module: nn.Module | None) -> RawCheckpoint:
    """Names in the order of the network; without one, the file's order if it is the network's, else the natural one."""
    if module is not None:
        position = {name: index for index, name in enumerate(module.state_dict())}
        last = len(position)
        order = sorted(raw.specs, key=lambda name: position.get(name, last))
    elif raw.ordered:
        return raw
    else:
        order = sorted(raw.specs, key=natural_key)
    return replace(raw, specs={name: raw.specs[name] for name in order})


def _checkpoint(path: Path, raw: RawCheckpoint, network: Network) -> Checkpoint:
    from curvlab.formats.inference.infer import infer_layers

    scale, notes = _adapter_scale(path, raw.specs)
    found = infer_layers(raw.specs, raw.tensors, raw.tables, raw.experts, scale)
    if all(layer.kind == "buffer" for layer in found.layers):
        names = listed(raw.specs)
        raise CheckpointError(f"{quoted(path)} holds no weights", f"its tensors are {names}, none of which is trained")
    specs = {**raw.specs, **{name: fold.spec for name, fold in found.folds.items()}}
    return Checkpoint(
        path=path,
        format=raw.format,
        tensors=_with_folds(raw, specs, found.folds),
        shapes={name: spec.shape for name, spec in specs.items()},
        dtypes={name: spec.dtype for name, spec in specs.items()},
        layers=found.layers,
        module=network.module,
        architecture=network.made_by,
        metadata=raw.metadata,
        notes=(*raw.notes, *notes, *network.notes),
        data=raw.data,
        likelihood=raw.likelihood,
        aliases=raw.aliases,
        folded={name: fold.sources for name, fold in found.folds.items()},
        files=raw.files,
        fop=raw.fop,
        extra={"folders": network.folders} if network.folders else {},
    )


def _adapter_scale(path: Path, names: Iterable[str]) -> tuple[Scale | None, tuple[str, ...]]:
    """α/r of low-rank updates, from the adapter_config.json beside their file; a note where that cannot be used."""
    from curvlab.formats.peft.place import SETTINGS
    from curvlab.formats.peft.settings import read_settings

    folder = path if path.is_dir() else path.parent
    if not any(".lora_A" in name for name in names) or not (folder / SETTINGS).exists():
        return None, ()
    try:
        return read_settings(folder).scale, ()
    except CheckpointError as error:
        return None, (f"the scale of the updates is not known: {error}",)


def _with_folds(raw: RawCheckpoint, names: Iterable[str], folds: Mapping[str, Fold]) -> LazyTensors:
    """The stored tensors in their new order, and behind them the weights put together from several of them."""
    from curvlab.formats.lazy_tensors import LazyTensors

    return LazyTensors(
        {
            name: partial(_folded, raw.tensors, folds[name]) if name in folds else raw.tensors.reader(name)
            for name in names
        }
    )


def _folded(tensors: Mapping[str, Tensor], fold: Fold) -> Tensor:
    return fold.compute(*(tensors[source] for source in fold.sources))
