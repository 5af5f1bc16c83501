"""Model directories of Hugging Face and timm: the weights beside a `config.json`.

Nothing is resolved outside of the directory; a file may be a link only as the Hugging Face cache lays models out.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from curvlab.errors import CheckpointError
from curvlab.formats.inference.stacked_experts import SETTINGS
from curvlab.formats.model_config import CONFIG, read_config, settings_of
from curvlab.formats.paths import regular_file, stays_inside
from curvlab.formats.raw_checkpoint import RawCheckpoint
from curvlab.formats.safetensors.file import read_safetensors
from curvlab.formats.safetensors.sharded import find_index, read_sharded
from curvlab.formats.torch.file import read_torch_legacy, read_torch_zip
from curvlab.quoting import listed, quoted


def read_huggingface(path: Path, max_memory: int | None = None) -> RawCheckpoint:
    """The weights of a Hugging Face directory, by their names in the file.

    Raises:
        CheckpointError: no weights beside the configuration, several files of them, or files that are not valid.
    """
    return _read(path, "huggingface", max_memory)


def read_timm(path: Path, max_memory: int | None = None) -> RawCheckpoint:
    """The weights of a timm directory, by their names in the file.

    Raises:
        CheckpointError: as `read_huggingface`.
    """
    return _read(path, "timm", max_memory)


def _read(path: Path, name: str, max_memory: int | None) -> RawCheckpoint:
    experts = frozenset(
        value
        for _, key, value in settings_of(read_config(path))
        if key in SETTINGS and type(value) is int and value > 1
    )
    weights = _weights(path)
    if weights.suffix == ".json":
        stored = read_sharded(weights)
    elif weights.suffix == ".safetensors":
        stored = read_safetensors(weights)
    else:
        with weights.open("rb") as file:
            is_zip = file.read(4) == b"PK\x03\x04"
        stored = (read_torch_zip if is_zip else read_torch_legacy)(weights, max_memory)
    return replace(stored, format=name, files=(*stored.files, path / CONFIG), experts=experts)


def _weights(path: Path) -> Path:
    index = find_index(path)
    if index is not None:
        return index
    names = sorted(entry.name for entry in path.iterdir())
    safe = [name for name in names if name.endswith(".safetensors")]
    usual = ["model.safetensors", "pytorch_model.bin"]
    found = next((name for name in usual if name in names), None)
    if found != "model.safetensors" and len(safe) == 1:
        found = safe[0]
    if found is None:
        why = (
            f"it holds several weights files ({listed(safe)})" if safe else f"it holds {listed(names)}, and no weights"
        )
        raise CheckpointError(
            f"{quoted(path)} is a model directory with a {CONFIG}", why, "give the weights file itself"
        )
    return stays_inside(regular_file(path / found), path)
