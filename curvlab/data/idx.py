"""IDX files, the format of MNIST and its relatives: two zero bytes, a type, how many axes, their sizes, numbers."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING

from curvlab.data.budget import within
from curvlab.data.pairs import dataset
from curvlab.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from curvlab.data.dataset import Dataset

TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: Path, max_memory: int | None) -> Dataset:
    """Inputs from an IDX file or a folder of them, targets from the file that belongs to it.

    In a folder the training images are taken, else the only images there; the targets are in the file whose name
    differs by "labels" for "images" and its axes. Grey images (n, h, w) become (n, 1, h, w).
    """
    inputs = _images_in(path) if path.is_dir() else path
    targets = _labels_of(inputs)
    x = _read(inputs, max_memory)
    y = None if targets is None else _read(targets, max_memory)
    if x.ndim == 3:
        x = x[:, None]
    return dataset(x, y, inputs.name.split("-")[0], f"'{inputs}'")


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


def _read(path: Path, max_memory: int | None) -> Tensor:
    """The array in one IDX file, gzipped or not; its declared size is checked before anything is allocated."""
    import numpy as np
    import torch

    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else path.open("rb") as file:
            dtype, shape = _header(file, path)
            size = math.prod(shape) * np.dtype(dtype).itemsize
            if not zipped and path.stat().st_size - file.tell() != size:
                raise DataError(
                    f"'{path}' declares {size:,} bytes of numbers", "it holds another number: it is damaged"
                )
            within(size, max_memory, f"'{path}'")
            content = _exactly(file, size)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise DataError(f"'{path}' is not an IDX file that can be read", str(error)) from error
    if content is None:
        raise DataError(f"'{path}' declares {size:,} bytes of numbers", "it holds another number: it is damaged")
    array = np.frombuffer(content, dtype=dtype).reshape(shape)
    return torch.from_numpy(array.astype(np.dtype(dtype).newbyteorder("=")))


def _header(file: IO[bytes] | gzip.GzipFile, path: Path) -> tuple[str, tuple[int, ...]]:
    zeros, code, axes = struct.unpack(">HBB", file.read(4))
    if zeros != 0 or code not in TYPES or axes == 0:
        raise DataError(f"'{path}' does not begin as IDX files do", "it is something else, or damaged")
    return TYPES[code], struct.unpack(f">{axes}I", file.read(4 * axes))


def _exactly(file: IO[bytes] | gzip.GzipFile, size: int) -> bytes | None:
    """`size` bytes when exactly those are left (read in pieces: a false size allocates nothing); else None."""
    pieces, left = [], size
    while left:
        piece = file.read(min(left, 2**24))
        if not piece:
            return None
        pieces.append(piece)
        left -= len(piece)
    return None if file.read(1) else b"".join(pieces)
