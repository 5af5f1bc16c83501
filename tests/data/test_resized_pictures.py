"""Pictures at another size against means of their pixels, and digits of a folder by `PATH:16x16`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from curvlab.data.dataset import Dataset
from curvlab.data.load import load
from curvlab.data.resized import resized
from curvlab.errors import DataError


def test_a_constant_and_a_ramp_keep_their_values() -> None:
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    x = torch.cat([torch.full((1, 1, 8, 8), 3.0), ramp])
    made = resized(Dataset("d", x, None, "mine"), (4, 4))
    torch.testing.assert_close(made.x[0], torch.full((1, 4, 4), 3.0))
    # Away from the borders a filter that is symmetric keeps a ramp: pixel k covers 2k and 2k + 1.
    torch.testing.assert_close(made.x[1, 0, :, 1:3], torch.tensor([2.5, 4.5]).expand(4, 2))
    assert made.notes == ("pictures resized from 8x8 to 4x4, bilinearly with antialiasing",)


def test_every_pixel_counts() -> None:
    """A single bright pixel is never passed over, wherever it is."""
    x = torch.eye(64).reshape(64, 1, 8, 8) * 255
    made = resized(Dataset("d", x.to(torch.uint8), None, "mine"), (4, 4))
    assert made.x.dtype == torch.uint8
    assert bool((made.x.flatten(1).sum(1) > 40).all())


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(DataError, match="only pictures have another size"):
        resized(Dataset("d", torch.zeros(3, 5), None, "mine"), (4, 4))


def test_digits_of_a_folder(tmp_path: Path) -> None:
    for digit in range(10):
        (tmp_path / f"{digit}.json").write_text(json.dumps({"data": [digit / 10] * (2 * 784)}))
    whole, small = load(str(tmp_path)), load(f"{tmp_path}:16x16")
    assert whole.x.shape == (20, 1, 28, 28)
    assert small.x.shape == (20, 1, 16, 16)
    assert small.y is not None
    torch.testing.assert_close(small.x[:, 0, 0, 0].double() / 255, small.y.double() / 10, atol=0.01, rtol=0)
