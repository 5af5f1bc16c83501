"""The state of a run in one file, there completely or not at all, with a checksum; data alone, with nothing to run.

    magic · sha256 of the rest (32 bytes) · length of the tree (u64) · the tree as JSON · tensors' bytes, each from a
    multiple of 64

The tree holds plain values; a tensor stands in it as its type, shape and strides. No reader of pickles or of compressed
archives takes part, so that what a file can cost is known from its size.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from curvlab.errors import CheckpointError
from curvlab.formats.whole_file import whole_file
from curvlab.quoting import quoted, reason
from curvlab.training.plain_files import opened, plain_file

_MAGIC = b"curvlab training state 2\n"
_DIGEST, _LENGTH, _ALIGNMENT = 32, 8, 64
_START = len(_MAGIC) + _DIGEST
MAX_TREE_BYTES = 2**26
"""The most bytes of the plain values, enough for some 500,000 tensors."""
MAX_DEPTH = 32
_TYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex128, torch.complex64),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    )
}


class _Malformed(Exception):  # noqa: N818 - it carries a clause out of a recursion
    pass


def write_state(path: Path, content: Mapping[str, Any]) -> None:
    """Write a tree of tables, lists, tuples, tensors and plain values.

    Raises:
        CheckpointError: it cannot be written; the older state is then as it was.
        TypeError: something in it is none of these.
    """
    tensors: list[Tensor] = []
    tree = json.dumps(_tree(content, tensors)).encode("ascii")
    with whole_file(path, "the state") as beside, beside.open("w+b") as file:
        file.write(_MAGIC + bytes(_DIGEST) + len(tree).to_bytes(_LENGTH, "little") + tree)
        for tensor in tensors:
            file.write(bytes(-file.tell() % _ALIGNMENT))
            if tensor.numel():
                file.write(tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8).numpy().data)
        digest = _digest(file)
        file.seek(len(_MAGIC))
        file.write(digest)


def read_state(path: Path) -> dict[str, Any]:
    """What `write_state` wrote, on the CPU; tensors are mapped, their bytes are read when they are copied.

    Raises:
        CheckpointError: there is none, it is damaged, or it is something else.
    """
    again = "start again with --force"
    if not plain_file(path):
        raise CheckpointError(f"there is no run to continue: {quoted(path)} does not exist", "", "leave --resume out")
    try:
        with opened(path, os.O_RDONLY) as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise CheckpointError(f"{quoted(path)} is not a training state of this version of curvlab", "", again)
            digest = file.read(_DIGEST)
            size = file.seek(0, os.SEEK_END)
            if size < _START + _LENGTH or _digest(file) != digest:
                raise CheckpointError(f"the state {quoted(path)} is damaged", "its checksum does not match", again)
            return _content(file, size)
    except OSError as error:
        raise CheckpointError(f"the state {quoted(path)} cannot be read", reason(error)) from error
    except _Malformed as error:
        raise CheckpointError(f"the state {quoted(path)} cannot be read", str(error), again) from None


def _digest(file: IO[bytes]) -> bytes:
    """sha256 of everything after the place where it stands."""
    file.seek(_START)
    return hashlib.file_digest(file, "sha256").digest()  # type: ignore[arg-type]


def _content(file: IO[bytes], size: int) -> dict[str, Any]:
    file.seek(_START)
    length = int.from_bytes(file.read(_LENGTH), "little")
    if length > min(MAX_TREE_BYTES, size - _START - _LENGTH):
        raise _Malformed(f"its values would take {length:,} bytes")
    try:
        tree = json.loads(file.read(length).decode("ascii"))
    except (ValueError, RecursionError):  # a number of thousands of digits is a ValueError, too
        raise _Malformed("its values are not JSON as curvlab writes it") from None
    reader = _Reader(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), size, _START + _LENGTH + length)
    content = reader.value(tree, 0)
    if reader.position != size:
        raise _Malformed("its bytes are not those of its tensors")
    if not isinstance(content, dict):
        raise _Malformed("it is not a table of values")
    return content


def _tree(value: Any, tensors: list[Tensor]) -> Any:
    """The value in JSON's terms; every table, tuple, tensor and float beyond numbers is tagged."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, Tensor):
        tensors.append(dense := _dense(value))
        return {"tensor": [str(dense.dtype).removeprefix("torch."), list(dense.shape), list(dense.stride())]}
    if isinstance(value, Mapping):
        if not all(type(key) in (str, int) for key in value):
            raise TypeError("a state's tables have words and whole numbers as keys")
        return {"table": [[key, _tree(one, tensors)] for key, one in value.items()]}
    if isinstance(value, list):
        return [_tree(one, tensors) for one in value]
    if isinstance(value, tuple):
        return {"tuple": [_tree(one, tensors) for one in value]}
    raise TypeError(f"a state cannot hold a {type(value).__name__}")


def _dense(tensor: Tensor) -> Tensor:
    """The tensor on the CPU, its numbers without gaps, in the order of axes that it has in memory.

    The order is part of the state: a product of a matrix stored by columns rounds otherwise than of one stored by rows.
    """
    found = tensor.detach().cpu().resolve_conj().resolve_neg()
    span = 1 + sum((size - 1) * stride for size, stride in zip(found.shape, found.stride(), strict=True))
    order = sorted(range(found.ndim), key=found.stride, reverse=True)
    return found if span == found.numel() and found.permute(order).is_contiguous() else found.contiguous()


class _Reader:
    """The inverse of `_tree`; tensors are windows on the mapped file, one after the other."""

    def __init__(self, mapped: mmap.mmap, size: int, position: int) -> None:
        self.mapped, self.size, self.position = mapped, size, position

    def value(self, given: Any, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise _Malformed(f"its values are nested more than {MAX_DEPTH} deep")
        if isinstance(given, list):
            return [self.value(one, depth + 1) for one in given]
        if not isinstance(given, dict):
            return given
        match given:
            case {"table": list(pairs), **rest} if not rest:
                return self._table(pairs, depth + 1)
            case {"tuple": list(items), **rest} if not rest:
                return tuple(self.value(one, depth + 1) for one in items)
            case {"float": "inf" | "-inf" | "nan" as text, **rest} if not rest:
                return float(text)
            case {"tensor": [str(kind), list(shape), list(strides)], **rest} if not rest and kind in _TYPES:
                return self._tensor(_TYPES[kind], shape, strides)
        raise _Malformed("one of its values is of no known kind")

    def _table(self, pairs: list[Any], depth: int) -> dict[Any, Any]:
        table: dict[Any, Any] = {}
        for pair in pairs:
            if not isinstance(pair, list) or len(pair) != 2 or type(pair[0]) not in (str, int) or pair[0] in table:
                raise _Malformed("one of its tables has a key twice, or none")
            table[pair[0]] = self.value(pair[1], depth)
        return table

    def _tensor(self, dtype: torch.dtype, shape: list[Any], strides: list[Any]) -> Tensor:
        sizes = all(type(size) is int and 0 <= size < 2**48 for size in (*shape, *strides))
        if len(shape) > 32 or len(strides) != len(shape) or not sizes:
            raise _Malformed("one of its tensors has a shape that cannot be")
        begin = self.position + -self.position % _ALIGNMENT
        count = math.prod(shape)
        self.position = begin + count * dtype.itemsize
        if self.position > self.size:
            raise _Malformed("it ends before its tensors do")
        if count == 0:
            return torch.empty(shape, dtype=dtype)
        if 1 + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True)) != count:
            raise _Malformed("one of its tensors has gaps or overlaps")
        if dtype == torch.bool:  # a byte other than 0 and 1 is not a bool to torch
            flat = torch.frombuffer(self.mapped, dtype=torch.uint8, count=count, offset=begin) != 0
        else:
            flat = torch.frombuffer(self.mapped, dtype=dtype, count=count, offset=begin)
        return flat.as_strided(shape, strides)
