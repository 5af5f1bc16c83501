"""CURVES: images of smooth curves through three random points, after Hinton & Salakhutdinov 2006; no download."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curvlab.data.dataset import Dataset
from curvlab.data.registry import entry

if TYPE_CHECKING:
    from torch import Tensor

EXAMPLES, SIDE = 12_000, 28
SEED = 0
UNIT = 64
"""Whole numbers to a pixel."""
STEPS = 128
"""Points drawn of a curve: less than a pixel apart."""
CORE, REACH = UNIT // 2, UNIT * 5 // 4
"""Distances from the curve up to which a pixel is white, and from which it is black."""


def curves(count: int = EXAMPLES, seed: int = SEED) -> Tensor:
    """x (count, 1, 28, 28) in [0, 1]: q(t) = (1−t)(1−2t)p₀ + 4t(1−t)p₁ + t(2t−1)p₂ with p uniform in the inner 20².

    The parabola through three points, a pixel's level falling with its squared distance from it, from 1 at half a pixel
    to 0 at 1¼; where it leaves the image it is cut. Computed in whole numbers: the same on every machine.

    Args:
        count: of images.
        seed: of all points; the dataset `curves` has 0.
    """
    import torch

    random = torch.Generator().manual_seed(seed)
    # The device is named so that torch.device("meta") and the like around a call change nothing.
    low, high = 4 * UNIT, (SIDE - 5) * UNIT
    points = torch.randint(low, high + 1, (count, 3, 2), generator=random, device="cpu")
    k = torch.arange(STEPS + 1, device="cpu")
    shares = torch.stack([(STEPS - k) * (STEPS - 2 * k), 4 * k * (STEPS - k), k * (2 * k - STEPS)])
    path = (points[:, :, None] * shares[:, :, None]).sum(1) // STEPS**2
    near = torch.arange(-1, 3, device="cpu")
    cells = (path // UNIT)[..., None] + near
    squares = (cells * UNIT - path[..., None]) ** 2
    distance = squares[:, :, 0, :, None] + squares[:, :, 1, None, :]
    level = ((REACH**2 - distance) * 255 // (REACH**2 - CORE**2)).clamp(0, 255)
    rows, columns = cells[:, :, 0, :, None], cells[:, :, 1, None, :]
    inside = (rows >= 0) & (rows < SIDE) & (columns >= 0) & (columns < SIDE)
    place = (rows * SIDE + columns).where(inside, 0)
    image = torch.zeros(count, SIDE * SIDE, dtype=torch.int64, device="cpu")
    image.scatter_reduce_(1, place.flatten(1), level.where(inside, 0).flatten(1), "amax")
    return image.view(count, 1, SIDE, SIDE).float() / 255


def read_curves() -> Dataset:
    """The dataset `curves`."""
    source = f"curves ({entry('curves').source}, seed {SEED})"
    return Dataset("curves", curves(), None, source, synthetic=True)
