"""Image folders: one sub-folder per class, or images without classes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from curvlab.data.budget import within
from curvlab.data.dataset import drawn, drawn_note
from curvlab.data.framing import Framing
from curvlab.data.pairs import dataset
from curvlab.errors import DataError
from curvlab.formats.names import natural_key

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from curvlab.data.dataset import Dataset

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".pgm", ".ppm"}
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "PPM")
"""All that Pillow may take a file for, whatever its name; PPM stands for PBM and PGM, too. Without a list Pillow starts
Ghostscript, which runs programs, on an EPS called 0.png."""
MAX_PIXELS = 2**26
"""Pixels of one image; a larger one is refused before it is decoded."""
GREY = {"1", "L", "LA"}
COLOUR = {"P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}


class Header(NamedTuple):
    """What an image says of itself before it is decoded: height, width, and Pillow's name for its pixel type."""

    h: int
    w: int
    mode: str


def read_images(
    folder: Path, framing: Framing | None, samples: int | None, seed: int, max_memory: int | None
) -> Dataset:
    """Images as (n, c, h, w) of uint8, c = 1 when every one is grey, else 3; targets are the classes' places in order.

    Classes are the sub-folders that hold images, in natural order. Images of different sizes need a
    `framing`. `samples` of them are drawn by `seed` before any is opened, and all sizes are read from the headers,
    and checked against the budget, before any is decoded.
    """
    import torch

    classes = [child for child in _natural(folder) if child.is_dir() and _images(child)]
    groups = [_images(child) for child in classes] or [_images(folder)]
    labelled = [(path, place) for place, group in enumerate(groups) for path in group]
    if not labelled:
        raise DataError(f"'{folder}' has no data in it", "no IDX files, no images, no folders of images were found")
    notes = [f"{len(classes)} classes: {', '.join(child.name for child in classes[:20])}"] if classes else []
    if samples is not None and samples < len(labelled):
        notes.append(drawn_note(len(labelled), samples, seed))
        labelled = [labelled[row] for row in drawn(len(labelled), samples, seed).tolist()]
    headers = [(path, _header(path)) for path, _ in labelled]
    h, w, channels = _common_shape(folder, headers, framing)
    if framing is not None:
        notes.append(f"images {framing.sentence()} where they had another size")
    within(len(labelled) * channels * h * w, max_memory, f"'{folder}'")
    x = torch.empty(len(labelled), channels, h, w, dtype=torch.uint8)
    for row, (path, _) in enumerate(labelled):
        x[row] = _pixels(path, framing, channels)
    y = torch.tensor([place for _, place in labelled]) if classes else None
    found = dataset(x, y, folder.name, f"'{folder}'", tuple(notes))
    return replace(found, classes=tuple(child.name for child in classes))


def _common_shape(
    folder: Path, headers: Sequence[tuple[Path, Header]], framing: Framing | None
) -> tuple[int, int, int]:
    """(h, w, c) for all images: their one size or that of the framing; colour when one of them has it."""
    channels = 3 if any(header.mode in COLOUR for _, header in headers) else 1
    if framing is not None:
        small = next(((path, one) for path, one in headers if not framing.fits(one.h, one.w)), None)
        if small is not None:
            path, header = small
            raise DataError(f"'{path}' has {header.w} x {header.h} pixels", f"too few: images are {framing.sentence()}")
        wide = next((path for path, one in headers if math.prod(framing.resized(one.h, one.w)) > MAX_PIXELS), None)
        if wide is not None:
            raise DataError(f"'{wide}' would have more than {MAX_PIXELS:,} pixels", f"images are {framing.sentence()}")
        headers = [(path, Header(*framing.shape(one.h, one.w), one.mode)) for path, one in headers]
    sizes = sorted({(header.h, header.w) for _, header in headers})
    if len(sizes) > 1:
        few = ", ".join(f"{h}x{w}" for h, w in sizes[:4])
        do = f"resize them, or ask for one size: --data '{folder}:32x32'"
        raise DataError(f"'{folder}' holds images of {len(sizes)} sizes ({few})", "they cannot be stacked", do)
    return *sizes[0], channels


def _images(folder: Path) -> Sequence[Path]:
    return [child for child in _natural(folder) if child.suffix.lower() in SUFFIXES and child.is_file()]


def _natural(folder: Path) -> Sequence[Path]:
    """Children by name, numbers in it by value: 2 before 10."""
    return sorted(folder.iterdir(), key=lambda path: natural_key(path.name))


def _header(path: Path) -> Header:
    with _opened(path) as image:
        if image.width * image.height > MAX_PIXELS:
            raise DataError(f"'{path}' has {image.width} x {image.height} pixels", f"at most {MAX_PIXELS:,} are read")
        if image.mode not in GREY | COLOUR:
            raise DataError(f"'{path}' has pixels of type {image.mode}", "only 8-bit grey and colour images are read")
        return Header(image.height, image.width, image.mode)


def _pixels(path: Path, framing: Framing | None, channels: int) -> Tensor:
    import numpy as np
    import torch

    with _opened(path) as image:
        try:
            converted = image.convert("L" if channels == 1 else "RGB")
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(f"'{path}' cannot be decoded", str(error)) from error
    framed = converted if framing is None else framing.of(converted)
    pixels = np.array(framed).reshape(framed.height, framed.width, channels)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _opened(path: Path) -> Image:
    """The image at `path`, its header read and its pixels not yet."""
    import PIL.Image

    bombs = (PIL.Image.DecompressionBombWarning, PIL.Image.DecompressionBombError)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
            return PIL.Image.open(path, formats=FORMATS)
    except PIL.UnidentifiedImageError as error:
        why = "it is none of PNG, JPEG, BMP, WebP, PBM, PGM and PPM"
        raise DataError(f"'{path}' is not an image that can be read", why, "convert it, or leave it out") from error
    except (OSError, ValueError, *bombs) as error:
        raise DataError(f"'{path}' is not an image that can be read", str(error)) from error
