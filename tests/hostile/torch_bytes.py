"""Bytes of PyTorch's formats as an enemy may write them: pickles that call anything, in both kinds of file."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch

from curvlab.formats.torch.pickle_trace import LEGACY_MAGIC


class Calls:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


class Storage:
    """Pickles as a reference to the bytes of the file, of any size one likes to claim."""

    def __init__(self, elements: Any, key: Any = "0", kind: Any = torch.FloatStorage, *view: Any) -> None:
        self.identifier = ("storage", kind, key, "cpu", elements, *view)


class _Pickler(pickle.Pickler):
    parts = 5  # of a reference to a storage; the old format has a sixth, for views

    def persistent_id(self, value: Any) -> Any:
        return (
            (*value.identifier, None)[: max(self.parts, len(value.identifier))] if isinstance(value, Storage) else None
        )


class _OldPickler(_Pickler):
    parts = 6


def pickled(value: Any, pickler: type[_Pickler] = _Pickler) -> bytes:
    buffer = io.BytesIO()
    pickler(buffer, 2).dump(value)
    return buffer.getvalue()


def tensor(size: Any, stride: Any = None, storage: Any = None, offset: Any = 0) -> Calls:
    stride = tuple(1 for _ in size) if stride is None else stride
    storage = Storage(4) if storage is None else storage
    rebuild = torch._utils._rebuild_tensor_v2
    return Calls(rebuild, storage, offset, size, stride, False, OrderedDict())


def archive(value: Any, data: bytes = bytes(16), compress: int = zipfile.ZIP_STORED) -> bytes:
    """A zip as torch writes it, around any pickle."""
    content = value if isinstance(value, bytes) else pickled(value)
    entries = {"m/data.pkl": content, "m/byteorder": b"little", "m/data/0": data, "m/version": b"3\n"}
    return zipped(entries, compress)


def zipped(entries: dict[str, bytes], compress: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compress) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return buffer.getvalue()


def legacy(value: Any, keys: Any = ("0",), count: int = 4, data: bytes = bytes(16)) -> bytes:
    """The old format around any pickle: five pickles, then the storages."""
    content = value if isinstance(value, bytes) else pickled(value, _OldPickler)
    facts = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    parts = [pickled(0x1950A86A20F9469CFC6C), pickled(1001), pickled(facts), content, pickled(list(keys))]
    return b"".join(parts) + struct.pack("<q", count) + data


def weights(**changes: Any) -> dict[str, Any]:
    return {"fc.weight": tensor((2, 2), (2, 1)), **changes}


FRAMES: dict[str, Callable[[Any], bytes]] = {"zip": archive, "legacy": legacy}

LEGACY_MAGIC_PICKLE = b"\x80\x02" + LEGACY_MAGIC
