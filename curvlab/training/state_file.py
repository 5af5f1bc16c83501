"""The state of a run in one file, there completely or not at all, with a checksum; read as data, never as code."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from curvlab.checkpoints.quoting import quoted, reason
from curvlab.checkpoints.whole_file import whole_file
from curvlab.errors import CheckpointError
from curvlab.training.plain_files import opened, plain_file

_MAGIC = b"curvlab training state 1\n"
_DIGEST = 32


def write_state(path: Path, content: Mapping[str, Any]) -> None:
    """Magic, sha256 of the rest, and the rest: `torch.save` of tensors and plain values.

    Raises:
        CheckpointError: it cannot be written; the older state is then as it was.
    """
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    with whole_file(path, "the state") as beside, beside.open("wb") as file:
        file.write(_MAGIC)
        file.write(hashlib.sha256(buffer.getbuffer()).digest())
        file.write(buffer.getbuffer())


def read_state(path: Path) -> dict[str, Any]:
    """What `write_state` wrote, on the CPU.

    Raises:
        CheckpointError: there is none, it is damaged, or it is something else.
    """
    again = "start again with --force"
    if not plain_file(path):
        raise CheckpointError(f"there is no run to continue: {quoted(path)} does not exist", "", "leave --resume out")
    try:
        with opened(path, os.O_RDONLY) as file:
            data = file.read()
    except OSError as error:
        raise CheckpointError(f"the state {quoted(path)} cannot be read", reason(error)) from error
    if not data.startswith(_MAGIC):
        raise CheckpointError(f"{quoted(path)} is not a training state of this version of curvlab", "", again)
    digest, body = data[len(_MAGIC) :][:_DIGEST], memoryview(data)[len(_MAGIC) + _DIGEST :]
    if hashlib.sha256(body).digest() != digest:
        raise CheckpointError(f"the state {quoted(path)} is damaged", "its checksum does not match", again)
    try:
        content = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its reader meets
        raise CheckpointError(f"the state {quoted(path)} cannot be read", reason(error), again) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{quoted(path)} is not a training state of this version of curvlab", "", again)
    return content
