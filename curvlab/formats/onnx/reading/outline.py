"""Whether a file has the outline of an ONNX model, told from field numbers alone: nothing is parsed into memory.

ONNX is a protocol-buffers message without a mark of its own. Its outermost fields are few (`ModelProto` in onnx.proto),
and one of them, `graph`, must hold at least one `node`: an empty file parses as a model too, and is none.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

MODEL_FIELDS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26})
GRAPH_FIELDS = frozenset({1, 2, 5, 10, 11, 12, 13, 14, 15, 16})
GRAPH, NODE = 7, 1
_MOST_FIELDS = 100_000


def is_onnx(path: Path) -> bool:
    """The outermost fields of the file are those of a model, and its graph has a node."""
    with path.open("rb") as file:
        graph = _find(file, GRAPH, MODEL_FIELDS, path.stat().st_size)
        return graph is not None and _find(file, NODE, GRAPH_FIELDS, graph) is not None


def _find(file: BinaryIO, wanted: int, allowed: frozenset[int], end: int) -> int | None:
    """Moves into the first field `wanted` and returns where it ends; None if it is absent or no field fits."""
    for _ in range(_MOST_FIELDS):
        key = _number(file)
        if key is None or key >> 3 not in allowed or key & 7 not in (0, 2):
            return None
        size = _number(file)
        if size is None:
            return None
        if key & 7 == 2:
            if file.tell() + size > end:
                return None
            if key >> 3 == wanted:
                return file.tell() + size
            file.seek(size, 1)
        if file.tell() >= end:
            return None
    return None


def _number(file: BinaryIO) -> int | None:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    return None
