"""Image folders made with Pillow: classes in natural order, grey and colour, sizes, damage."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from curvlab.data import images, load
from curvlab.errors import DataError, MemoryBudgetError


def picture(path, shape=(4, 5), seed=0, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    Image.fromarray(pixels).convert(mode or ("L" if len(shape) == 2 else "RGB")).save(path)
    return torch.from_numpy(pixels)


def test_sub_folders_are_classes_in_natural_order(tmp_path):
    first = picture(tmp_path / "2" / "a10.png", seed=1)
    second = picture(tmp_path / "2" / "a9.png", seed=2)
    third = picture(tmp_path / "10" / "z.png", seed=3)
    (tmp_path / "2" / "notes.txt").write_text("not an image")
    (tmp_path / "empty").mkdir()
    data = load(tmp_path)
    assert data.y.tolist() == [0, 0, 1]
    assert torch.equal(data.x, torch.stack([second, first, third])[:, None])
    assert data.x.dtype == torch.uint8


def test_colour_anywhere_makes_all_colour(tmp_path):
    grey = picture(tmp_path / "a.png", seed=1)
    colour = picture(tmp_path / "b.png", (4, 5, 3), seed=2)
    data = load(tmp_path)
    assert data.y is None
    assert torch.equal(data.x[0], grey.expand(3, 4, 5))
    assert torch.equal(data.x[1], colour.permute(2, 0, 1))


def test_sizes_must_agree_or_be_asked_for(tmp_path):
    picture(tmp_path / "a.png", (4, 5))
    picture(tmp_path / "b.png", (8, 8))
    with pytest.raises(DataError, match="2 sizes"):
        load(tmp_path)
    assert load(f"{tmp_path}:6x7").x.shape == (2, 1, 6, 7)
    assert load(tmp_path, input_shape=(1, 6, 7)).x.shape == (2, 1, 6, 7)


def test_only_the_drawn_images_are_opened(tmp_path):
    for place in range(8):
        picture(tmp_path / f"{place}.png", seed=place)
    (tmp_path / "9.png").write_bytes(b"broken")
    opened = [seed for seed in range(20) if loads(tmp_path, seed)]
    assert opened  # some draw of 3 out of 9 leaves the broken one out
    data = load(tmp_path, samples=3, seed=opened[0])
    assert len(data) == 3
    assert "3 of 9" in data.notes[0]


def loads(folder, seed):
    try:
        load(folder, samples=3, seed=seed)
    except DataError:
        return False
    return True


@pytest.mark.parametrize("damage", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_a_broken_image_is_named(tmp_path, damage):
    picture(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(damage)
    with pytest.raises(DataError, match=r"bad\.png"):
        load(tmp_path)


def test_a_truncated_image_is_named(tmp_path):
    picture(tmp_path / "cut.png", (64, 64))
    content = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"cut\.png"):
        load(tmp_path)


def test_too_many_pixels_are_refused_before_decoding(tmp_path, monkeypatch):
    picture(tmp_path / "large.png", (64, 64))
    monkeypatch.setattr(images, "MAX_PIXELS", 1000)
    with pytest.raises(DataError, match="64 x 64 pixels"):
        load(tmp_path)


def test_pillows_own_alarm_becomes_the_same_error(tmp_path, monkeypatch):
    picture(tmp_path / "large.png", (64, 64))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    with pytest.raises(DataError, match=r"large\.png"):
        load(tmp_path)


def test_sixteen_bit_images_are_refused_and_not_clipped(tmp_path):
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match="8-bit"):
        load(tmp_path)


def test_the_budget_counts_all_images(tmp_path):
    for place in range(3):
        picture(tmp_path / f"{place}.png", (10, 10))
    with pytest.raises(MemoryBudgetError, match="300 bytes"):
        load(tmp_path, max_memory=299)


EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 4 5
%%EndComments
(executed) (w) file closefile
showpage
%%EOF
"""


def test_only_plain_pictures_are_opened_whatever_they_are_called(tmp_path, monkeypatch):
    """Pillow hands an EPS to Ghostscript, a program with a language of its own, when its pixels are asked for."""
    started = []
    monkeypatch.setattr("subprocess.check_call", lambda *command, **_: started.append(command))
    monkeypatch.setattr("PIL.EpsImagePlugin.has_ghostscript", lambda: True)
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", "gs")
    (tmp_path / "0.png").write_bytes(EPS)
    with pytest.raises(DataError, match=r"0\.png' is not an image that can be read.*PNG, JPEG, BMP, WebP"):
        load(tmp_path)
    assert not started


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "ICO", "TGA", "PDF", "PCX", "SGI"])
def test_formats_that_are_not_on_the_list_are_refused(tmp_path, kind):
    Image.new("RGB", (4, 5)).save(tmp_path / "a.png", format=kind)
    with pytest.raises(DataError, match=r"a\.png' is not an image that can be read"):
        load(tmp_path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "bmp", "webp", "pgm", "ppm"])
def test_every_format_on_the_list_is_read(tmp_path, suffix):
    picture(tmp_path / f"a.{suffix}", (4, 5) if suffix == "pgm" else (4, 5, 3))
    assert load(tmp_path).x.shape[2:] == (4, 5)
