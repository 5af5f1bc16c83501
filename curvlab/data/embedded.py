"""The datasets that travel inside the package: digits and four tables, scaled the same way every time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curvlab.data.bundle import EMBEDDED
from curvlab.data.dataset import Dataset
from curvlab.data.registry import entry

if TYPE_CHECKING:
    from torch import Tensor

SIDES = {"digits": 8, "digits-16x16": 16, "digits-28x28": 28, "digits-28x28-inverted": 28}
"""Pixels along one side of the digits, as stored and resized."""


def embedded(name: str) -> Dataset:
    """The embedded dataset `name`: digits in [0, 1], tables and regression targets standardised per column."""
    import numpy as np
    import torch

    stored = "digits" if name in SIDES else name
    with np.load(EMBEDDED, allow_pickle=False) as arrays:
        x, y = torch.from_numpy(arrays[f"{stored}.x"]), torch.from_numpy(arrays[f"{stored}.y"])
    known = entry(name)
    if stored == "digits":
        x = (x.to(torch.float32) / 16).reshape(-1, 1, 8, 8)
        if name != stored:
            side = SIDES[name]
            x = torch.nn.functional.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)
        if name.endswith("-inverted"):
            x = 1 - x
    else:
        x = _standardised(x)
    y = _standardised(y[:, None]) if known.task == "regression" else y.to(torch.int64)
    return Dataset(name, x, y, f"{name} ({known.source})", task=known.task)


def _standardised(columns: Tensor) -> Tensor:
    """(c − mean c) / std c per column, std over n, computed in float64, as float32."""
    columns = columns.double()
    return ((columns - columns.mean(0)) / columns.std(0, correction=0)).float()
