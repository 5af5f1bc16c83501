"""Sharded safetensors: an `*.index.json` that says which file holds which tensor.

The index is text that is easily edited, so it is believed only where the shards' own headers agree: every file name is
a plain name beside the index, every tensor stands in exactly one shard, and that shard is the one the index names.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from curvlab.errors import CheckpointError
from curvlab.formats import strict_json
from curvlab.formats.lazy_tensors import LazyTensors
from curvlab.formats.paths import regular_file, stays_inside
from curvlab.formats.raw_checkpoint import RawCheckpoint
from curvlab.formats.safetensors.header import MAX_HEADER_BYTES, MAX_TENSORS
from curvlab.quoting import listed, quoted

MAX_SHARDS = 10_000


def find_index(directory: Path) -> Path | None:
    """The one index of a directory; None when there is none. The safetensors index wins beside one of older formats.

    Raises:
        CheckpointError: several, and no way to choose.
    """
    found = sorted(entry for entry in directory.iterdir() if entry.name.endswith(".index.json"))
    preferred = [entry for entry in found if entry.name.endswith(".safetensors.index.json")]
    candidates = preferred or found
    if len(candidates) > 1:
        names = listed(entry.name for entry in candidates)
        raise CheckpointError(
            f"{quoted(directory)} holds several indexes ({names})", do="give the one you mean instead of the folder"
        )
    return candidates[0] if candidates else None


def read_sharded(path: Path, max_memory: int | None = None) -> RawCheckpoint:
    """Names, shapes and lazy tensors of all shards, in the order of the shards.

    Args:
        path: the index file, or a directory with exactly one.
        max_memory: as of every reader; headers alone are read here.

    Raises:
        CheckpointError: the index and its shards are not one consistent model.
    """
    index = path
    if path.is_dir():
        found = find_index(path)
        if found is None:
            raise CheckpointError(f"{quoted(path)} holds no *.index.json")
        index = found
    table = _read_index(index)
    places = _checked_places(index, table.get("weight_map"))
    shards = {name: _read_shard(index, name) for name in dict.fromkeys(places.values())}
    kept = _checked_agreement(index, places, shards)
    stored_bytes = sum(shards[places[name]].specs[name].stored_bytes for name in kept)
    notes = _total_notes(index, table.get("metadata"), stored_bytes)
    unlisted = [name for shard in shards.values() for name in shard.specs if name not in places]
    if unlisted:
        notes.append(f"left out because {quoted(index.name)} does not list them: {listed(unlisted)}")
    return RawCheckpoint(
        format="safetensors-sharded",
        files=(index, *(shard.files[0] for shard in shards.values())),
        specs={name: shards[places[name]].specs[name] for name in kept},
        tensors=LazyTensors({name: shards[places[name]].tensors.reader(name) for name in kept}),
        aliases={
            alias: name
            for shard in shards.values()
            for alias, name in shard.aliases.items()
            if alias not in places and name in places
        },
        notes=tuple(notes),
    )


def _read_index(index: Path) -> dict[str, Any]:
    regular_file(index)
    if index.stat().st_size > MAX_HEADER_BYTES:
        raise _refused(index, f"it is {index.stat().st_size} bytes long, beyond the limit of {MAX_HEADER_BYTES}")
    try:
        table = strict_json.parse(index.read_bytes())
    except ValueError as error:
        raise _refused(index, str(error)) from None
    if not isinstance(table, dict):
        raise _refused(index, f"it is a JSON {type(table).__name__}, not an object")
    return table


def _checked_places(index: Path, places: Any) -> dict[str, str]:
    if not isinstance(places, dict) or not places:
        raise _refused(index, "its weight_map is not a table from tensor names to file names")
    if len(places) > MAX_TENSORS:
        raise _refused(index, f"it lists {len(places)} tensors, beyond the limit of {MAX_TENSORS}")
    names = set()
    for name, shard in places.items():
        if not isinstance(shard, str) or not shard:
            raise _refused(index, f"tensor {quoted(name)} is said to be in {quoted(shard)}, which is not a file name")
        names.add(shard)
    if len(names) > MAX_SHARDS:
        raise _refused(index, f"it lists {len(names)} shards, beyond the limit of {MAX_SHARDS}")
    for shard in names:
        if any(mark in shard for mark in ("/", "\\", "\0", ":")) or shard in {".", ".."}:
            raise _refused(index, f"the shard {quoted(shard)} is not a plain name in the same folder")
        if not shard.endswith(".safetensors"):
            raise _refused(index, f"the shard {quoted(shard)} is not a safetensors file, the only kind read in shards")
    return places


def _read_shard(index: Path, name: str) -> RawCheckpoint:
    shard = index.parent / name
    if not os.path.lexists(shard):
        raise _refused(index, f"its shard {quoted(name)} is missing", "put all shards beside the index")
    regular_file(shard)
    stays_inside(shard, index.parent)
    from curvlab.formats.safetensors.file import read_safetensors  # torch, which detecting a format does without

    return read_safetensors(shard)


def _checked_agreement(index: Path, places: dict[str, str], shards: dict[str, RawCheckpoint]) -> list[str]:
    """Listed names in the shards' order, once every one is known to stand in its own shard and in no other."""
    kept = []
    for shard_name, shard in shards.items():
        for name in shard.specs:
            place = places.get(name)
            if place == shard_name:
                kept.append(name)
            elif place is not None:
                raise _refused(
                    index,
                    f"tensor {quoted(name)} is said to be in {quoted(place)} but stands in {quoted(shard_name)}",
                )
    absent = places.keys() - kept
    if absent:
        first = next(name for name in places if name in absent)
        raise _refused(index, f"tensor {quoted(first)} is not in its shard {quoted(places[first])}")
    return kept


def _total_notes(index: Path, metadata: Any, stored_bytes: int) -> list[str]:
    """A sentence where the total in the index is another than the shards': every tensor has been checked against its
    own shard, so that a writer that counts otherwise (tied weights twice, or before a conversion) hides nothing."""
    if metadata is None:
        return []
    if not isinstance(metadata, dict):
        raise _refused(index, "its metadata is not a table")
    total = metadata.get("total_size", stored_bytes)
    # Some writers store the whole number as a float.
    if isinstance(total, bool) or not isinstance(total, int | float) or total != stored_bytes:
        return [f"{quoted(index.name)} says a total_size of {quoted(total)}, and the shards hold {stored_bytes} bytes"]
    return []


def _refused(index: Path, why: str, do: str = "download the model again") -> CheckpointError:
    return CheckpointError(f"{quoted(index)} is not a valid index of a sharded model", why, do)
