"""Tensors out of a pickle that was only followed: their names from where they stand, their bytes from the file.

What torch's own reader refuses (whole pickled networks, settings of foreign classes, TorchScript's objects) still says
in plain numbers which tensors there are. A foreign object is nothing here but the table of its attributes: its class is
never looked up, and what the pickle would call is never called.

| in the pickle | here |
|---|---|
| `torch._utils._rebuild_tensor_v2(storage, …)` | a tensor over the storage's bytes |
| an object with `_parameters`, `_buffers`, `_modules` | the flat table of its state dictionary |
| any other object | the table of its attributes, its pairs and its items |
| a numpy array, as numpy writes it | a tensor over the bytes in the pickle |
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from curvlab.formats.dtypes import ITEM_BYTES
from curvlab.formats.torch.pickle_trace import Call, Contents, Global, NotAPickle, Persistent, Table, read_pickle
from curvlab.formats.torch.pickle_vetting import TENSORS, Layout, Storage, declared_storages, tensor_layout

Bytes = Callable[[Storage], Tensor]
"""The bytes of a storage, as a uint8 tensor of exactly its length."""

MAX_DEPTH = 200
_PARAMETERS = frozenset({"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"})
_ARRAY = frozenset({"numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"})
_BUFFERS = frozenset({"numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer"})
_NUMPY_TYPES = {"f8": "float64", "f4": "float32", "f2": "float16", "i8": "int64", "i4": "int32", "i2": "int16"} | {
    "i1": "int8",
    "u1": "uint8",
    "b1": "bool",
}
# The arguments of calls that make containers; of other calls they are settings or say how to make the object.
_CONTAINERS = frozenset({"collections.OrderedDict", "collections.defaultdict", "builtins.dict", "builtins.list"})


def traced_tree(path: Path, contents: Contents, bytes_of: Bytes) -> Any:
    """Nested dictionaries and lists with tensors, as `state_dict_of` takes them; everything else became None.

    Raises:
        CheckpointError: a tensor that does not fit its storage, or whose storage is not in the file.
    """
    return _Conversion(path, bytes_of).value(contents.value, 0)


class _Conversion:
    """One tree; what the pickle refers to twice is converted once, so that tied tensors stay tied."""

    def __init__(self, path: Path, bytes_of: Bytes) -> None:
        self.path, self.bytes_of = path, bytes_of
        self.made: dict[int, Any] = {}
        self.tensors: dict[Layout, Tensor] = {}

    def value(self, given: Any, depth: int) -> Any:
        if isinstance(given, Tensor) or not isinstance(given, Table | Call | list | tuple):
            return given if isinstance(given, Tensor) else None
        if id(given) not in self.made:
            if depth > MAX_DEPTH:
                return None
            self.made[id(given)] = None  # an object inside itself
            self.made[id(given)] = self._made(given, depth + 1)
        return self.made[id(given)]

    def _made(self, given: Table | Call | list[Any] | tuple[Any, ...], depth: int) -> Any:
        if isinstance(given, Table):
            return self._table(given.pairs, depth)
        if isinstance(given, Call):
            return self._call(given, depth)
        return [self.value(item, depth) for item in given]

    def _call(self, call: Call, depth: int) -> Any:
        name, arguments = str(call.function), call.arguments
        arguments = arguments if isinstance(arguments, tuple) else ()
        if name == "torch._tensor._rebuild_from_type_v2" and len(arguments) > 2:
            return self.value(Call(arguments[0], arguments[2]), depth)
        if name in _PARAMETERS:
            return self.value(arguments[0], depth) if arguments else None
        if name in TENSORS:
            return self._tensor(name, arguments)
        if name in _ARRAY or name in _BUFFERS:
            return _array(call)
        attributes = dict(_attributes(call.state))
        if {"_parameters", "_modules"} <= attributes.keys():
            return dict(self._state_dict(attributes, depth))
        pairs = [*call.pairs, *attributes.items()]
        if name in _CONTAINERS and arguments:
            pairs += _pairs(arguments[-1])
        table = self._table(pairs, depth)
        return {**table, **{str(place): self.value(item, depth) for place, item in enumerate(call.items)}}

    def _table(self, pairs: Iterable[tuple[Any, Any]], depth: int) -> dict[Any, Any]:
        plain = ((key if isinstance(key, str | bytes | int) else str(key)[:99], value) for key, value in pairs)
        return {key: self.value(value, depth) for key, value in plain}

    def _state_dict(self, attributes: dict[Any, Any], depth: int) -> Iterator[tuple[str, Tensor]]:
        """What `module.state_dict()` would list, from the attributes that every torch module has."""
        passing = attributes.get("_non_persistent_buffers_set")
        skipped = {item for item in _items(passing) if isinstance(item, str)}
        for part in ("_parameters", "_buffers"):
            for name, stored in _pairs(attributes.get(part)):
                tensor = self.value(stored, depth)
                if isinstance(tensor, Tensor) and name not in skipped:
                    yield str(name), tensor
        for name, stored in _pairs(attributes["_modules"]):
            inner = self.value(stored, depth)
            if isinstance(inner, dict):
                yield from ((f"{name}.{role}", tensor) for role, tensor in inner.items() if isinstance(tensor, Tensor))

    def _tensor(self, name: str, arguments: tuple[Any, ...]) -> Tensor | None:
        if name == "torch._utils._rebuild_qtensor" or not arguments:
            return None
        within = arguments[0]
        if isinstance(within, Persistent):
            storage, read = None, self.bytes_of
        else:
            found = _nested(self.path, within)
            if found is None:
                return None
            storage, read = found[0], _constant(found[1])
        layout = tensor_layout(self.path, name, arguments, storage)
        if layout.dtype not in ITEM_BYTES or layout.dtype.startswith("q"):
            return None
        if isinstance(within, Persistent) and layout in self.tensors:
            return self.tensors[layout]
        tensor = laid_out(read(layout.storage), layout)
        self.tensors[layout] = tensor
        return tensor


def laid_out(stored: Tensor, layout: Layout) -> Tensor:
    """The tensor that `layout` makes of a storage's bytes, without a copy where the bytes are aligned."""
    size = ITEM_BYTES[layout.dtype]
    part = stored[layout.offset * size : (layout.offset + layout.span) * size]
    if layout.dtype == "bool":
        flat = part != 0  # a byte other than 0 and 1 is not a bool to torch
    else:
        aligned = part if part.data_ptr() % size == 0 and part.storage_offset() % size == 0 else part.clone()
        flat = aligned.view(getattr(torch, layout.dtype))
    return flat.as_strided(layout.sizes, layout.strides)


def _constant(stored: Tensor) -> Bytes:
    return lambda _: stored


def _nested(path: Path, value: Any) -> tuple[Storage, Tensor] | None:
    """A storage that was pickled outside of torch.save: a file of torch's old format, as bytes in the pickle."""
    match value:
        case Call(Global("torch.storage", "_load_from_bytes"), (inner,)):
            content = _bytes(inner)
        case _:
            return None
    if content is None:
        return None
    stream = io.BytesIO(content)
    try:
        for _ in range(3):  # magic number, protocol version, facts about the writing machine
            read_pickle(stream)
        contents = read_pickle(stream)
        read_pickle(stream)
    except NotAPickle:
        return None
    storages = declared_storages(path, contents)
    if len(storages) != 1 or not isinstance(contents.value, Persistent):
        return None
    data = content[stream.tell() + 8 :]
    if len(data) < storages[0].stored_bytes:
        return None
    return storages[0], torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(
        0, dtype=torch.uint8
    )


def _attributes(state: Any) -> Iterator[tuple[Any, Any]]:
    """What a state puts into the object: a table, or (table, table of slots)."""
    for part in state if isinstance(state, tuple) else (state,):
        yield from ((key, value) for key, value in _pairs(part) if isinstance(key, str))


def _pairs(value: Any) -> list[tuple[Any, Any]]:
    """The pairs of a table, or of a call that makes one."""
    return [(pair[0], pair[1]) for pair in _items(value) if isinstance(pair, list | tuple) and len(pair) == 2]


def _items(value: Any) -> list[Any]:
    """The pairs of a table, the members of a list, both of a call that makes one; nothing of anything else."""
    match value:
        case Table():
            return list(value.pairs)
        case Call():
            inner = value.arguments[-1] if isinstance(value.arguments, tuple) and value.arguments else ()
            return [*value.pairs, *value.items, *(_items(inner) if isinstance(inner, list | tuple) else ())]
        case list() | tuple():
            return list(value)
    return []


def _bytes(value: Any) -> bytes | None:
    """Bytes as they are, or as the protocols before 3 write them."""
    match value:
        case bytes() | bytearray():
            return bytes(value)
        case Call(Global("_codecs", "encode"), (str() as text, "latin1")):
            return text.encode("latin-1", "replace")
        case Call(Global("builtins" | "__builtin__", "bytes" | "bytearray"), ()):
            return b""
    return None


def _array(call: Call) -> Tensor | None:
    """A numpy array from (version, shape, dtype, is Fortran order, bytes) or (bytes, dtype, shape, order)."""
    match call.state if str(call.function) in _ARRAY else call.arguments:
        case (_, tuple() as shape, Call() as dtype, bool() as fortran, content):
            pass
        case (content, Call() as dtype, tuple() as shape, ("C" | "F") as order):
            fortran = order == "F"
        case _:
            return None
    match dtype:
        case Call(Global("numpy", "dtype"), (str() as kind, *_)):
            order = dtype.state[1] if isinstance(dtype.state, tuple) and len(dtype.state) > 1 else "="
        case _:
            return None
    data = _bytes(content)
    if not data or kind not in _NUMPY_TYPES or order == ">":
        return None
    size = ITEM_BYTES[_NUMPY_TYPES[kind]]
    if not all(type(side) is int and side >= 0 for side in shape) or math.prod(shape) * size != len(data):
        return None
    flat = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    typed = flat != 0 if kind == "b1" else flat.view(getattr(torch, _NUMPY_TYPES[kind]))
    axes = tuple(reversed(range(len(shape))))
    return typed.reshape(tuple(reversed(shape))).permute(axes) if fortran else typed.reshape(shape)
