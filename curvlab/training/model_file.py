"""Models written the same way every time: equal networks are equal files, byte for byte."""

from __future__ import annotations

import json
from pathlib import Path

from torch import nn

from curvlab.checkpoints.own import save
from curvlab.training.task import Task


def write_model(path: Path, module: nn.Module, task: Task) -> None:
    """`curvlab.save` with what the task knows of the network, its metadata in alphabetical order.

    The safetensors library writes metadata in an order of its own that changes from file to file.

    Raises:
        CheckpointError: it cannot be written; an older file is then as it was.
    """
    beside = path.with_name(f".{path.name}.ordered")
    try:
        save(beside, module, architecture=task.architecture, data=task.data, likelihood=task.problem.likelihood)
        _order(beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _order(path: Path) -> None:
    """Sort the metadata in a header: u64 length, JSON, blanks (the format's own filling), then the tensors' bytes."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= length:  # the library's own JSON is as short; were it not, its order would stay
            file.seek(8)
            file.write(text.ljust(length))
