"""ONNX files: weights from initializers, Constant nodes and branches, in torch's layout and under readable names."""

from __future__ import annotations

from pathlib import Path

from curvlab.formats.lazy_tensors import LazyTensors
from curvlab.formats.raw_checkpoint import RawCheckpoint
from curvlab.quoting import listed


def read_onnx(path: Path, max_memory: int | None = None) -> RawCheckpoint:
    """The weights of an ONNX model; nothing of its graph is run but what needs constants only.

    A weight that is part of a layer stands as torch's module of that kind has it: matrices (out, in), gates of
    recurrent layers in torch's order, one tensor per direction and side. Names come from the file where they mean
    something, else from the node that uses them. External data is read when asked for, and only from plain files below
    the model's own folder.

    Raises:
        CheckpointError: one sentence on why the file is no ONNX model or a malformed one.
        MemoryBudgetError: the file is larger than `max_memory`.
    """
    from curvlab.formats.onnx.running.loaded_model import loaded_model

    found = loaded_model(path, max_memory)
    notes = []
    if found.left_out:
        notes.append(f"left out, since torch has no such tensors: {listed(found.left_out)}")
    return RawCheckpoint(
        format="onnx",
        files=found.files,
        specs={name: spec for name, (spec, _) in found.weights.items()},
        tensors=LazyTensors({name: read for name, (_, read) in found.weights.items()}),
        aliases=found.aliases,
        metadata={"producer": f"{found.model.producer_name} {found.model.producer_version}".strip()},
        ordered=True,
        notes=tuple(notes),
    )
