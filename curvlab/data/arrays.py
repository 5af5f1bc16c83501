"""Arrays from .npz, .npy, .safetensors and .pt files, never running anything a file contains."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from curvlab.data.budget import within
from curvlab.data.pairs import dataset, paired
from curvlab.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from curvlab.data.dataset import Dataset


def read_npz(path: Path, max_memory: int | None) -> Dataset:
    """Arrays of a numpy archive. Declared shapes are checked against stored sizes first; pickles are refused."""
    import numpy as np

    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            numeric = []
            for info in members:
                with archive.open(info) as member:
                    if _check_header(member, info.file_size, path):
                        numeric.append(info.filename.removesuffix(".npy"))
            within(sum(info.file_size for info in members), max_memory, f"'{path}'")
        with np.load(path, allow_pickle=False) as stored:
            return paired({key: _tensor(stored[key]) for key in numeric}, path.stem, f"'{path}'")
    except (zipfile.BadZipFile, ValueError, EOFError, KeyError, OSError, NotImplementedError) as error:
        raise DataError(f"'{path}' is not a numpy archive that can be read", str(error)) from error


def read_npy(path: Path, max_memory: int | None) -> Dataset:
    """The one array of a .npy file, as inputs without targets."""
    import numpy as np

    size = path.stat().st_size
    within(size, max_memory, f"'{path}'")
    try:
        with path.open("rb") as file:
            numeric = _check_header(file, size, path)
        if not numeric:
            raise DataError(f"'{path}' does not hold numbers")
        return dataset(_tensor(np.load(path, allow_pickle=False)), None, path.stem, f"'{path}'")
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"'{path}' is not a numpy array that can be read", str(error)) from error


def read_safetensors(path: Path, max_memory: int | None) -> Dataset:
    """Tensors of a safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    within(path.stat().st_size, max_memory, f"'{path}'")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise DataError(f"'{path}' is not a safetensors file that can be read", str(error)) from error
    return paired(tensors, path.stem, f"'{path}'")


def read_torch(path: Path, max_memory: int | None) -> Dataset:
    """A tensor, a pair (x, y) or a dictionary of tensors saved by `torch.save`; anything else is refused, unrun."""
    import torch

    within(_unpacked_size(path), max_memory, f"'{path}'")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile pickle may fail anywhere in torch's reader; nothing of it has run
        why = "it holds Python objects, or is damaged, and only plain tensors are read"
        raise DataError(
            f"'{path}' cannot be read as tensors", why, "save a pair (x, y) of tensors with torch.save"
        ) from error
    if isinstance(content, torch.Tensor):
        content = {"x": content}
    elif isinstance(content, (tuple, list)) and len(content) <= 2:
        content = dict(zip("xy", content, strict=False))
    if not isinstance(content, Mapping):
        raise DataError(
            f"'{path}' holds a {type(content).__name__}", "a tensor, a pair (x, y) or a dictionary was expected"
        )
    tensors = {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}
    return paired(tensors, path.stem, f"'{path}'")


def _check_header(file: IO[bytes], size: int, path: Path) -> bool:
    """True when the array that `file` (of `size` bytes) declares is numeric; its shape must match its bytes."""
    from numpy.lib import format as npy

    version = npy.read_magic(file)
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read_header(file)
    if dtype.hasobject:
        raise DataError(
            f"'{path}' holds pickled Python objects", "loading them could run code", "save plain numeric arrays"
        )
    if math.prod(shape) * dtype.itemsize != size - file.tell() or any(side < 0 for side in shape):
        raise DataError(
            f"'{path}' declares an array of shape {shape}", "its bytes do not match: it is cut off or damaged"
        )
    return dtype.kind in "biuf"


def _tensor(array: Any) -> Tensor:
    """`array` as a tensor: native byte order, and integer types that torch does not compute with as int64."""
    import numpy as np
    import torch

    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)
    elif array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    return torch.from_numpy(np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C"))


def _unpacked_size(path: Path) -> int:
    if not zipfile.is_zipfile(path):
        return path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        return sum(info.file_size for info in archive.infolist())
