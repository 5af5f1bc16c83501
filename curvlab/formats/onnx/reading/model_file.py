"""An ONNX file as a parsed message: what it is, and what parsing may cost, is known before it is parsed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from curvlab.errors import CheckpointError, MemoryBudgetError
from curvlab.formats.onnx.reading.protobuf_scan import MOST_FIELDS, count_fields
from curvlab.formats.paths import regular_file
from curvlab.quoting import quoted

_LARGEST = 2**31 - 1  # protocol buffers end there; larger models keep their weights in files of their own


def parsed_model(path: Path, max_memory: int | None) -> Any:
    """The file's ModelProto.

    Raises:
        CheckpointError: no ONNX model, or a malformed one.
        MemoryBudgetError: the file is larger than `max_memory`.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    size = regular_file(path).stat().st_size
    if max_memory is not None and size > max_memory:
        raise MemoryBudgetError(f"{quoted(path)} takes {size} bytes", f"--max-memory allows {max_memory}")
    if size > _LARGEST:
        raise CheckpointError(f"{quoted(path)} is larger than an ONNX file can be", "its limit is 2 GiB")
    content = path.read_bytes()
    if count_fields(content) > MOST_FIELDS:
        raise CheckpointError(f"{quoted(path)} is no honest ONNX model", f"it has more than {MOST_FIELDS} fields")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except (DecodeError, UnicodeDecodeError):
        raise CheckpointError(
            f"{quoted(path)} is no ONNX model", "it is cut off or damaged", "download or export it again"
        ) from None
    if not model.HasField("graph") or not model.graph.node:
        raise CheckpointError(f"{quoted(path)} is no ONNX model", "it holds no graph")
    return model
