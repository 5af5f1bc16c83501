"""FOP's matrices over training: of the models that `curvlab train --snapshots N` kept beside the trained one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from curvlab.formats.curvlab_file.file import read_curvlab_file
from curvlab.formats.curvlab_file.fop_matrices import FopMatrices
from curvlab.formats.paths import regular_file, stays_inside

MOST = 12
"""Snapshots that are read, evenly spread, the first and the last among them."""
_NAME = re.compile(r"epoch-(\d{1,9})\.safetensors")


@dataclass(frozen=True)
class Snapshot:
    """The matrices after an epoch, and what to call it."""

    title: str
    fop: FopMatrices


def fop_snapshots(model: Path) -> tuple[Snapshot, ...]:
    """In the order of epochs, of a model in the folder of its training run; empty where nothing was kept.

    `model` is the trained network, or one of the snapshots itself.

    Raises:
        CheckpointError: a snapshot cannot be read, or is a link.
    """
    beside = model.parent / "snapshots"
    folder = model.parent if model.parent.name == "snapshots" and not beside.is_dir() else beside
    matched = [(_NAME.fullmatch(path.name), path) for path in folder.glob("epoch-*.safetensors")]
    kept = sorted((int(name[1]), path) for name, path in matched if name is not None)
    if len(kept) > MOST:
        kept = [kept[round(i * (len(kept) - 1) / (MOST - 1))] for i in range(MOST)]
    inside = [(epoch, stays_inside(regular_file(path), folder)) for epoch, path in kept]
    found = [(epoch, read_curvlab_file(path).fop) for epoch, path in inside]
    return tuple(Snapshot(f"epoch {epoch}", fop) for epoch, fop in found if fop is not None)
