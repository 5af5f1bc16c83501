"""What was found in a loaded or recovered tree of dictionaries, as a reader hands it on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from curvlab.errors import CheckpointError
from curvlab.formats.lazy_tensors import LazyTensors
from curvlab.formats.raw_checkpoint import RawCheckpoint
from curvlab.formats.state_dict import state_dict_of
from curvlab.quoting import listed, quoted


def tensors_in_tree(path: Path, name: str, tree: Any, notes: tuple[str, ...] = ()) -> RawCheckpoint:
    """The weights in a tree of dictionaries and lists.

    Args:
        path: of the file.
        name: of the format.
        tree: what the file holds.
        notes: sentences for the user, before those on what was unwrapped.

    Raises:
        CheckpointError: it is no tree, or one that is no state dictionary.
    """
    if not isinstance(tree, Mapping | list | tuple):
        raise CheckpointError(
            f"{quoted(path)} holds {_described(tree)}, not a dictionary of tensors",
            do="save the weights with torch.save(model.state_dict(), path)",
        )
    found = state_dict_of(path, tree)
    said = [*notes, *found.notes]
    if found.aliases:
        pairs = (f"{alias} = {kept}" for alias, kept in found.aliases.items())
        said.append(f"tied: the same weights under two names ({listed(pairs)})")
    return RawCheckpoint(
        format=name,
        files=(path,),
        specs=found.specs,
        tensors=LazyTensors(found.readers),
        aliases=found.aliases,
        ordered=True,
        notes=tuple(said),
    )


def _described(tree: Any) -> str:
    shape = getattr(tree, "shape", None)
    return f"one tensor of shape {tuple(shape)}" if shape is not None else f"a {type(tree).__name__}"
