"""Arrays of .npy and .npz files: the header is read by rules of our own, then the rows that are asked for.

numpy's reader evaluates the header as a Python expression and unpacks a member of an archive as a whole, however many
bytes it claims. Here a header is one dictionary of three plain values, an array has exactly the bytes of its shape,
and a compressed one is at most `budget.MAX_EXPANSION` times as large as its bytes in the file.
"""

from __future__ import annotations

import ast
import math
import re
import struct
import zipfile
import zlib
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from curvlab.data.budget import check_expansion
from curvlab.data.stored_arrays import Draw, StoredArray, gathered
from curvlab.data.streamed import kept_rows
from curvlab.errors import CheckpointError, DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from torch import Tensor

    from curvlab.data.dataset import Dataset

MAX_HEADER_BYTES = 10_000
MAX_MEMBERS = 10_000
MAX_DIRECTORY_BYTES = 4 * 2**20
"""Of the table of contents, which Python's reader takes in as a whole: 400 bytes for each of as many members."""
_TYPE = re.compile(r"[<>=|]?([?a-zA-Z])\d{0,9}(\[\w{1,20}\])?", re.ASCII)
_BROKEN = (zipfile.BadZipFile, EOFError, OSError, zlib.error, struct.error, NotImplementedError, RuntimeError)
"""What Python's readers of archives raise; RuntimeError is an encrypted member."""


class Header(NamedTuple):
    """What an array says of itself, and where its numbers begin."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    begin: int


def read_npy(path: Path, draw: Draw, max_memory: int | None) -> Dataset:
    """The one array of a .npy file, as inputs without targets."""
    with _readable(path, "array"):
        with path.open("rb") as file:
            header = _header(file, path.stat().st_size, path)
        if header is None:
            raise DataError(f"'{path}' does not hold numbers")
        stored = {"x": _stored(header, partial(_mapped, path, header))}
        return gathered(stored, path.stem, f"'{path}'", draw, max_memory)


def read_npz(path: Path, draw: Draw, max_memory: int | None) -> Dataset:
    """Arrays of a numpy archive; what is compressed is unpacked in pieces, of which the drawn rows are kept."""
    with _readable(path, "archive"), numpy_archive(path) as archive:
        members = {info.filename: info for info in archive.infolist() if info.filename.endswith(".npy")}
        if len(members) > MAX_MEMBERS:
            raise DataError(f"'{path}' holds {len(members):,} arrays", f"at most {MAX_MEMBERS:,} are looked at")
        stored = {}
        for name, info in members.items():
            with archive.open(info) as member:
                header = _header(member, info.file_size, path)
            if header is not None:
                read = partial(_unpacked, path, archive, info, header)
                stored[name.removesuffix(".npy")] = _stored(header, read)
        return gathered(stored, path.stem, f"'{path}'", draw, max_memory)


def numpy_archive(path: Path) -> zipfile.ZipFile:
    """The archive, once its table of contents is known to be small.

    Raises:
        DataError: it is too large, or it is not where it should be.
        zipfile.BadZipFile: it is no table of contents.
    """
    from curvlab.formats.zip_directory import check_directory

    try:
        with path.open("rb") as file:
            check_directory(path, file, MAX_DIRECTORY_BYTES)
    except CheckpointError as error:
        raise DataError(error.found, error.why, error.do) from error
    return zipfile.ZipFile(path)


@contextmanager
def _readable(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        why = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(f"'{path}' is not a numpy {what} that can be read", why) from error


def _header(file: IO[bytes], size: int, path: Path) -> Header | None:
    """The header of the array that `file`, of `size` bytes, holds; None when it holds no numbers.

    Raises:
        DataError: it is no header that numpy writes, it announces pickled objects, or its shape does not fit the bytes.
    """
    import numpy as np

    start = file.read(8)
    width = {1: 2, 2: 4, 3: 4}.get(start[6] if start[:6] == b"\x93NUMPY" and len(start) == 8 else 0)
    if width is None:
        raise DataError(f"'{path}' does not hold an array as numpy writes it", "it is damaged, or of a later version")
    length = int.from_bytes(file.read(width), "little")
    if length > MAX_HEADER_BYTES:
        raise DataError(
            f"'{path}' has an array with a header of {length:,} bytes", f"at most {MAX_HEADER_BYTES:,} are read"
        )
    text = file.read(length)
    if len(text) < length:
        raise DataError(f"'{path}' is cut off within the header of an array")
    try:
        # literal_eval takes numbers, words and containers of them, and calls nothing.
        match ast.literal_eval(text.decode("latin1").strip()):
            case {"descr": kind, "fortran_order": bool(fortran), "shape": tuple(shape)}:
                pass
            case _:
                raise ValueError
        sides = all(type(side) is int and 0 <= side < 2**63 for side in shape)
        if not sides or len(shape) > 32 or not isinstance(kind, str | list):
            raise ValueError
        if isinstance(kind, list) or not _TYPE.fullmatch(kind):
            return None  # a table of several columns
        dtype = np.dtype(kind)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        raise DataError(f"'{path}' has an array whose header numpy would not write", "it is damaged") from None
    if dtype.hasobject:
        raise DataError(
            f"'{path}' holds pickled Python objects", "loading them could run code", "save plain numeric arrays"
        )
    begin = 8 + width + length
    if math.prod(shape) * dtype.itemsize != size - begin:
        raise DataError(
            f"'{path}' declares an array of shape {shape}", "its bytes do not match: it is cut off or damaged"
        )
    return Header(shape, fortran, dtype, begin) if dtype.kind in "biuf" else None


def _stored(header: Header, read: Any) -> StoredArray:
    # Unsigned numbers of several bytes, which torch does not compute with, become int64, long doubles float64.
    wide = header.dtype.kind == "u" and header.dtype.itemsize > 1
    return StoredArray(header.shape, header.dtype.kind == "f", 8 if wide else min(8, header.dtype.itemsize), read)


def _mapped(path: Path, header: Header, rows: Tensor | None) -> Tensor:
    """Rows of an array that lies in the file as it is; pages of other rows are not read."""
    import numpy as np

    if math.prod(header.shape) == 0:
        return _tensor(np.empty(header.shape, header.dtype))
    order = "F" if header.fortran else "C"
    array = np.memmap(path, header.dtype, "r", header.begin, header.shape, order)  # type: ignore[call-overload]
    return _tensor(np.array(array if rows is None else array[rows.numpy()]))


def _unpacked(
    path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, header: Header, rows: Tensor | None
) -> Tensor:
    """Rows of a member. All of it is unpacked, a piece at a time, so that its checksum is verified."""
    import numpy as np

    check_expansion(info.file_size, info.compress_size, f"'{info.filename}' in '{path}'")
    with archive.open(info) as member:
        member.read(header.begin)
        made = kept_rows(member, header.shape, header.dtype, rows, fortran=header.fortran)
        if made is None or member.read(1):  # the end is where the checksum is looked at
            raise EOFError(f"'{info.filename}' does not have the bytes that it declares")
    return _tensor(np.asarray(made))


def _tensor(array: Any) -> Tensor:
    """`array` as a tensor: native byte order, and integer types that torch does not compute with as int64."""
    import numpy as np
    import torch

    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)
    elif array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    return torch.from_numpy(np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C"))
