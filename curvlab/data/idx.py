"""IDX files, the format of MNIST and its relatives: two zero bytes, a type, how many axes, their sizes, numbers."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from curvlab.data.budget import check_expansion
from curvlab.data.stored_arrays import Draw, StoredArray, gathered
from curvlab.data.streamed import kept_rows
from curvlab.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from curvlab.data.dataset import Dataset

TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: Path, draw: Draw, max_memory: int | None) -> Dataset:
    """Inputs from an IDX file or a folder of them, targets from the file that belongs to it.

    In a folder the training images are taken, else the only images there; the targets are in the file whose name
    differs by "labels" for "images" and its axes. Grey images (n, h, w) become (n, 1, h, w).
    """
    inputs = _images_in(path) if path.is_dir() else path
    targets = _labels_of(inputs)
    files = {"x": inputs} if targets is None else {"x": inputs, "y": targets}
    stored = {key: _stored(file, as_images=key == "x") for key, file in files.items()}
    return gathered(stored, inputs.name.split("-")[0], f"'{inputs}'", draw, max_memory)


def is_idx_folder(path: Path) -> bool:
    """True when a file in the folder is named as IDX files are."""
    return any(_is_named_idx(child) for child in path.iterdir())


def _is_named_idx(path: Path) -> bool:
    return (
        path.is_file() and ("-idx" in path.name or ".idx" in path.name) and path.name.endswith(("ubyte", ".gz", ".idx"))
    )


def _images_in(folder: Path) -> Path:
    found = sorted(child for child in folder.iterdir() if _is_named_idx(child))
    images = [child for child in found if "images" in child.name] or [
        child for child in found if "labels" not in child.name
    ]
    train = [child for child in images if child.name.startswith("train")]
    chosen = train[:1] or images
    if len(chosen) != 1:
        names = ", ".join(child.name for child in images) or "no images"
        raise DataError(f"'{folder}' holds {names}", "it is not clear which to use", "give the path of the file itself")
    return chosen[0]


def _labels_of(images: Path) -> Path | None:
    if "images" not in images.name:
        return None
    for axes in ("idx3", "idx2", "idx4"):
        name = images.name.replace("images", "labels").replace(axes, "idx1")
        for candidate in (name, name.removesuffix(".gz"), f"{name}.gz"):
            path = images.with_name(candidate)
            if path != images and path.is_file():
                return path
    return None


def _stored(path: Path, *, as_images: bool) -> StoredArray:
    """The array in one IDX file, gzipped or not, of which the header has been read."""
    import numpy as np

    with _opened(path) as file:
        code, shape = _header(file, path)
        begin = file.tell()
    dtype = np.dtype(code)
    size, there = math.prod(shape) * dtype.itemsize, path.stat().st_size
    if isinstance(file, gzip.GzipFile):
        check_expansion(size, there, f"'{path}'")
    elif there - begin != size:
        raise _damaged(path, size)
    shown = (shape[0], 1, *shape[1:]) if as_images and len(shape) == 3 else shape

    def read(rows: Tensor | None) -> Tensor:
        import torch

        with _opened(path) as again:
            again.read(begin)
            array = kept_rows(again, shape, dtype, rows)
            if array is None or again.read(1):
                raise _damaged(path, size)
        made = torch.from_numpy(array.astype(dtype.newbyteorder("="), copy=False))
        return made.reshape(len(made), *shown[1:])

    return StoredArray(shown, dtype.kind == "f", dtype.itemsize, read)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes] | gzip.GzipFile]:
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else path.open("rb") as file:
            yield file
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise DataError(f"'{path}' is not an IDX file that can be read", str(error)) from error


def _damaged(path: Path, size: int) -> DataError:
    return DataError(f"'{path}' declares {size:,} bytes of numbers", "it holds another number: it is damaged")


def _header(file: IO[bytes] | gzip.GzipFile, path: Path) -> tuple[str, tuple[int, ...]]:
    zeros, code, axes = struct.unpack(">HBB", file.read(4))
    if zeros != 0 or code not in TYPES or axes == 0:
        raise DataError(f"'{path}' does not begin as IDX files do", "it is something else, or damaged")
    return TYPES[code], struct.unpack(f">{axes}I", file.read(4 * axes))
