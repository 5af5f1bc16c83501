"""ONNX's stored tensors: shape and type known at once and checked against the bytes there are, the elements read later.

A tensor's elements stand in one of three places: raw little-endian bytes, a field per kind of number (16-bit floats as
bit patterns in the field of whole numbers), or another file.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from curvlab.errors import CheckpointError
from curvlab.formats.dtypes import ITEM_BYTES, TensorSpec
from curvlab.formats.onnx.operators.element_types import FOREIGN, NAMES
from curvlab.formats.onnx.reading.external_data import ExternalBytes, external_bytes
from curvlab.quoting import quoted

_EXTERNAL = 1  # TensorProto.DataLocation
_MOST_AXES = 64
# The field that holds elements of a type when there are no raw bytes, and the type of its entries.
_FIELDS = {
    "float32": ("float_data", torch.float32),
    "complex64": ("float_data", torch.float32),
    "float64": ("double_data", torch.float64),
    "complex128": ("double_data", torch.float64),
    "int64": ("int64_data", torch.int64),
    "uint32": ("uint64_data", torch.int64),
    "uint64": ("uint64_data", torch.uint64),
}
_OTHERS = ("int32_data", torch.int32)
_BITS = {2: torch.int16, 1: torch.int8}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of the file: `spec` is known, `read` gives its elements, each time anew."""

    name: str
    spec: TensorSpec
    proto: Any
    external: ExternalBytes | None = None

    def read(self) -> Tensor:
        """The tensor, in memory of its own."""
        dtype, shape = getattr(torch, self.spec.dtype), self.spec.shape
        if self.spec.elements == 0:
            return torch.empty(shape, dtype=dtype)
        if self.external is not None or self.proto.HasField("raw_data"):
            raw = self.external.read() if self.external is not None else bytearray(self.proto.raw_data)
            if dtype == torch.bool:
                return torch.frombuffer(raw, dtype=torch.uint8).reshape(shape) != 0
            return torch.frombuffer(raw, dtype=dtype).reshape(shape)
        field, entry = _FIELDS.get(self.spec.dtype, _OTHERS)
        values = torch.tensor(list(getattr(self.proto, field)), dtype=entry)
        if self.spec.dtype.startswith("complex"):
            return torch.view_as_complex(values.reshape(*shape, 2))
        if self.spec.is_float and dtype.itemsize < 4:
            return values.to(_BITS[dtype.itemsize]).view(dtype).reshape(shape)
        return values.to(dtype).reshape(shape)


def text(value: str | bytes) -> str:
    """A name in the file; protocol buffers give bytes where it is no text.

    Raises:
        CheckpointError: it is none.
    """
    if isinstance(value, bytes):
        raise CheckpointError(f"the name {quoted(value)} is not text", "it is not UTF-8")
    return value


def stored_tensor(proto: Any, directory: Path, name: str = "") -> StoredTensor | None:
    """A TensorProto, checked; None when its elements are of a type torch has no tensors of (text, 4-bit numbers).

    Raises:
        CheckpointError: an unknown type, a negative size, a shape that does not fit the bytes, bad external data.
    """
    name = text(proto.name) or name
    shape = tuple(int(size) for size in proto.dims)
    if proto.data_type not in NAMES:
        if proto.data_type in FOREIGN:
            return None
        raise CheckpointError(f"tensor {quoted(name)} has elements of the type {proto.data_type}", "ONNX has none such")
    if any(size < 0 for size in shape) or len(shape) > _MOST_AXES:
        raise CheckpointError(f"tensor {quoted(name)} has the shape {quoted(shape)}", "which no tensor can have")
    spec = TensorSpec(shape, NAMES[proto.data_type])
    needed = prod(shape) * ITEM_BYTES[spec.dtype]
    if needed == 0 and max(shape, default=0) > 2**31:
        raise CheckpointError(f"tensor {quoted(name)} has the shape {quoted(shape)}", "which no tensor can have")
    if proto.HasField("segment"):
        raise CheckpointError(f"tensor {quoted(name)} is stored in segments", "nothing is known to write such files")
    if proto.data_location == _EXTERNAL:
        return StoredTensor(name, spec, proto, external_bytes(proto.external_data, directory, name, needed))
    if proto.HasField("raw_data"):
        found = len(proto.raw_data)
    else:
        field, _ = _FIELDS.get(spec.dtype, _OTHERS)
        size = ITEM_BYTES[spec.dtype] // (2 if spec.dtype.startswith("complex") else 1)
        found = len(getattr(proto, field)) * size
    if found != needed:
        raise CheckpointError(f"tensor {quoted(name)} of the shape {shape} needs {needed} bytes", f"it has {found}")
    return StoredTensor(name, spec, proto)
