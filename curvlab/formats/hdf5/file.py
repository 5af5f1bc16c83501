"""HDF5 files (.h5, .hdf5) as Keras writes them: named tensors in torch's layouts, each read when asked.

Keras 2 stores `model_weights/<layer>/<layer>[_k]/<variable>:0`, or the same without `model_weights/` where only weights
were saved; Keras 3 stores `layers/<class>[_n]/vars/<i>`, with the layer's own name beside it. Any other HDF5 file gives
its datasets under their own paths.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curvlab.errors import CheckpointError, MemoryBudgetError
from curvlab.formats.dtypes import TensorSpec
from curvlab.formats.hdf5.chunks import Opener
from curvlab.formats.hdf5.keras_config import Described, described
from curvlab.formats.hdf5.keras_layout import Placed, numbered, placed, plain_class
from curvlab.formats.hdf5.outline import Dataset, Outline, opened, outline
from curvlab.formats.lazy_tensors import LazyTensors
from curvlab.formats.raw_checkpoint import RawCheckpoint
from curvlab.quoting import listed, quoted

if TYPE_CHECKING:
    from torch import Tensor

# The state of optimizers, which is no part of the network.
_OPTIMIZER = re.compile(r"(optimizer_weights|optimizer|_?metrics|loss_tracker|compile_metrics)(/|$)")
_LISTS = ("layers", "_layer_checkpoint_dependencies")
_HALF = re.compile(r"(?P<half>forward|backward)_(?:layer|.+)")


@dataclass(frozen=True)
class KerasCheckpoint(RawCheckpoint):
    """RawCheckpoint, and what Keras' own words say of it.

    Attributes:
        config: the description of the network, or None.
        plain: the file holds nothing that Keras would read or unpack beyond what was looked at here.
    """

    config: str | None = None
    plain: bool = True


@dataclass
class _Group:
    """The variables of one layer: the words of its path, its class as the path or the configuration has it."""

    words: list[str]
    kind: str
    variables: dict[str, str] = field(default_factory=dict)  # Keras' name -> path


def read_hdf5(path: Path, max_memory: int | None = None) -> KerasCheckpoint:
    """Names, shapes and lazy tensors of one HDF5 file, converted to torch's layouts where Keras' are recognised.

    Raises:
        CheckpointError: damaged, or not safe to read; one sentence.
    """
    found = outline(path, lambda: path)
    config = found.strings.get("", {}).get("model_config")
    return stored_of(path, found, lambda: path, "hdf5", config, max_memory)


def stored_of(
    path: Path, found: Outline, source: Opener, name: str, config: str | None, max_memory: int | None
) -> KerasCheckpoint:
    """The tensors of an outline under the names of their layers.

    Args:
        path: for messages.
        found: the outline of the file.
        source: gives the file for each reading.
        name: of the format.
        config: Keras' description of the network.
        max_memory: bytes that one tensor may take.
    """
    network = described(config)
    specs: dict[str, TensorSpec] = {}
    readers, aliases, first = {}, {}, dict[tuple[tuple[int, ...], str], str]()
    cells, tables = set[tuple[str, bool]](), set[str]()
    for group in _groups(found, network):
        layer = _name(group, cells)
        shapes = {variable: found.datasets[at].spec.shape for variable, at in group.variables.items()}
        for place in placed(group.kind, shapes, _reverse(group.words)):
            at = group.variables[place.variable]
            full = ".".join(part for part in (layer, place.part, place.role) if part)
            full = full if full not in specs and full not in aliases else at
            dataset = found.datasets[at]
            known = first.setdefault((dataset.address, place.role), full)
            if known != full:
                aliases[full] = known
                continue
            if place.variable == "embeddings":
                tables.add(full)
            specs[full] = TensorSpec(place.shape(dataset.spec.shape), dataset.spec.dtype)
            readers[full] = partial(read_dataset, path, source, at, dataset, place, max_memory)
    notes = list(found.notes)
    if optimizer := [at for at in found.datasets if _OPTIMIZER.match(at)]:
        notes.append(f"left out, for they belong to the optimizer: {listed(optimizer, 3)}")
    if aliases:
        notes.append(
            f"tied: the same weights under two names ({listed(f'{alias} = {kept}' for alias, kept in aliases.items())})"
        )
    version = found.strings.get("", {}).get("keras_version") or found.strings.get("model_weights", {}).get(
        "keras_version"
    )
    return KerasCheckpoint(
        format=name,
        files=(path,),
        specs=specs,
        tensors=LazyTensors(readers),
        aliases=aliases,
        metadata={"keras_version": version} if version else {},
        ordered=bool(network.order) or bool(found.lists),
        notes=tuple(notes),
        tables=frozenset(tables),
        config=config,
        plain=found.plain and not found.unread,
    )


def read_dataset(
    path: Path, source: Opener, name: str, dataset: Dataset, place: Placed, max_memory: int | None
) -> Tensor:
    """One tensor, in torch's layout and in memory of its own.

    Raises:
        CheckpointError: the file is no longer the one that was outlined, or the bytes cannot be read.
        MemoryBudgetError: it needs more than `max_memory`.
    """
    import numpy as np
    import torch
    from h5py import h5d, h5g, h5s

    spec = dataset.spec
    if max_memory is not None and spec.stored_bytes > max_memory:
        raise MemoryBudgetError(
            f"tensor {quoted(name)} of {quoted(path)} takes {spec.stored_bytes} bytes",
            f"--max-memory allows {max_memory}",
            "raise the limit",
        )
    with opened(path, source) as file:
        handle = h5d.open(file.id, name.encode("utf-8"))
        same = (
            h5g.get_objinfo(file.id, name.encode("utf-8")).objno == dataset.address
            and handle.get_space().shape == spec.shape
        )
        layout = handle.get_create_plist().get_layout()
        offset = handle.get_offset() if dataset.offset is not None else None
        if not same or layout == h5d.VIRTUAL or offset != dataset.offset:
            raise _changed(path)
        array = np.empty(spec.shape, dtype=handle.dtype)
        if array.size and offset is None:
            handle.read(h5s.ALL, h5s.ALL, array)
    if offset is not None:
        _read_piece(path, source, offset, array)
    if spec.dtype == "bfloat16":
        tensor = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    else:
        tensor = torch.from_numpy(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")))
    return place.turn(tensor.reshape(spec.shape)).contiguous()


def _read_piece(path: Path, source: Opener, offset: int, array: Any) -> None:
    """Fill the array with the bytes that stand in one piece, without libhdf5."""
    stream = source()
    view, filled = memoryview(array.reshape(-1).view("u1").data), 0
    file: Any
    with stream.open("rb") if isinstance(stream, Path) else stream as file:
        file.seek(offset)
        while filled < len(view):
            count = file.readinto(view[filled:])
            if not count:
                raise _changed(path)
            filled += count


def _changed(path: Path) -> CheckpointError:
    return CheckpointError(f"{quoted(path)} changed while it was being read", do="load it again")


def _groups(found: Outline, network: Described) -> Iterator[_Group]:
    """The layers' variables, in the order of the network where the file has it."""
    groups: dict[tuple[str, ...], _Group] = {}
    for at in _ordered(found):
        if _OPTIMIZER.match(at):
            continue
        *words, variable = at.split("/")
        kind = ""
        if words[-1:] == ["vars"] and variable.isdecimal():
            kind = plain_class(words[-2]) if len(words) > 1 else ""
            words = _words_of_keras3(words[:-1], found)
        else:
            words, variable = _words_of_keras2(words), re.sub(r":[0-9]+$", "", variable)
        last = words[-1] if words else ""
        kind = plain_class(network.classes.get(last, kind or last))
        group = groups.setdefault(tuple(words), _Group(words, kind))
        group.variables[variable] = at
    place = {name: index for index, name in enumerate(network.order)}
    for group in sorted(groups.values(), key=lambda g: place.get(g.words[0] if g.words else "", len(place))):
        if group.variables and all(name.isdecimal() for name in group.variables):
            shapes = {name: found.datasets[at].spec.shape for name, at in group.variables.items()}
            names = numbered(group.kind, shapes)
            group.variables = {names.get(name, name): at for name, at in group.variables.items()}
        yield group


def _ordered(found: Outline) -> list[str]:
    """Paths of all datasets, by the lists of names that Keras 2 keeps for layers and weights."""
    order: dict[str, None] = {}
    for root in ("model_weights", ""):
        prefix = f"{root}/" if root else ""
        for layer in _list(found, root, "layer_names"):
            for weight in _list(found, f"{prefix}{layer}", "weight_names"):
                if (at := f"{prefix}{layer}/{weight}") in found.datasets:
                    order[at] = None
    return [*order, *(at for at in found.datasets if at not in order)]


def _list(found: Outline, group: str, name: str) -> list[str]:
    """A list of names, which Keras cuts into `name0`, `name1`, … where it is long."""
    lists = found.lists.get(group, {})
    parts = (
        [lists[name]] if name in lists else [lists[key] for i in range(len(lists)) if (key := f"{name}{i}") in lists]
    )
    return [text for part in parts for text in part]


def _words_of_keras3(words: list[str], found: Outline) -> list[str]:
    """`layers/sequential/layers/dense_1` → the names of the layers on the way, as the file keeps them beside each."""
    named = []
    for depth in range(1, len(words) + 1):
        if words[depth - 1] in _LISTS:
            continue
        own = found.strings.get("/".join([*words[:depth], "vars"]), {}).get("name", "")
        named.append(own if own and "/" not in own and depth > 1 else words[depth - 1])
    return named


def _words_of_keras2(words: list[str]) -> list[str]:
    """`model_weights/dense_1/dense_1_1` → `dense_1`: the layer's name stands there twice, once made unique."""
    words = words[1:] if words[:1] == ["model_weights"] else words
    if len(words) > 1:
        outer, *inner = words
        if outer == "top_level_model_weights":
            return inner
        # Weights are filed below their layer under a path that begins with the layer, or with the network around it.
        again = [i for i, word in enumerate(inner) if re.fullmatch(rf"{re.escape(outer)}(_[0-9]+)?", word)]
        return [outer, *inner[again[0] + 1 :]] if again else words
    return words


def _reverse(words: list[str]) -> bool:
    return any(word.startswith("backward_") for word in words)


def _name(group: _Group, cells: set[tuple[str, bool]]) -> str:
    """`bidirectional/forward_lstm/lstm_cell` → `bidirectional`: both directions and their cells are one layer.

    Args:
        group: the variables of one layer.
        cells: layers whose cell has been met, with its direction; one of several cells keeps its own name.
    """
    words = list(group.words)
    if len(words) > 1 and re.fullmatch(r"cell|.+_cell(_[0-9]+)?", words[-1]):
        words = words[:-1]
        if len(words) > 1 and _HALF.fullmatch(words[-1]):
            words = words[:-1]
        owner = (".".join(words), _reverse(group.words))
        if owner in cells:
            return ".".join(group.words)
        cells.add(owner)
    return ".".join(words)
