"""CURVES: the same on every machine and whatever torch was doing; lines where the formula has them."""

from __future__ import annotations

import numpy as np
import torch

from curvlab.data import load
from curvlab.data.curves import REACH, SIDE, UNIT, curves
from curvlab.problems.split import Split, fingerprint

PINNED = "37893a8f1a0835f9ac61c94252a7ec8e16994dc1f013c06e6edc68151a9adfb4"


def test_the_dataset_is_pinned_and_touches_no_random_state() -> None:
    torch.manual_seed(9)
    before = torch.get_rng_state()
    with torch.device("meta"):
        whole = load("curves")
    assert torch.equal(torch.get_rng_state(), before)
    assert fingerprint(Split(whole, whole)) == PINNED
    assert whole.synthetic
    assert whole.x.shape == (12_000, 1, 28, 28)
    assert (whole.x.min(), whole.x.max()) == (0, 1)
    assert not torch.equal(curves(5, 1), whole.x[:5])
    assert torch.equal(curves(12_000)[:5], whole.x[:5])


def test_pixels_are_as_bright_as_the_parabola_is_near() -> None:
    """Against distances from a dense drawing of the parabola in floating point."""
    count = 20
    points = torch.randint(
        4 * UNIT, (SIDE - 5) * UNIT + 1, (count, 3, 2), generator=torch.Generator().manual_seed(0)
    ).numpy()
    t = np.linspace(0, 1, 2001)[:, None]
    rows, columns = np.mgrid[:SIDE, :SIDE] * UNIT
    for (a, b, c), image in zip(points, curves(count, 0).numpy()[:, 0], strict=True):
        path = (1 - t) * (1 - 2 * t) * a + 4 * t * (1 - t) * b + t * (2 * t - 1) * c
        distance = np.sqrt(((rows[..., None] - path[:, 0]) ** 2 + (columns[..., None] - path[:, 1]) ** 2).min(-1))
        # The drawn points are up to half a pixel from the parabola's nearest one.
        assert (image[distance > REACH + 4] == 0).all()
        assert (image[distance < UNIT // 4] > 0.5).all()
