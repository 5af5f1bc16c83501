"""IDX files written byte by byte, their folders, and headers that lie."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

from curvlab.data import load
from curvlab.errors import DataError, MemoryBudgetError

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 5, 4)).astype(np.uint8)
LABELS = np.array([3, 1, 4, 1, 5, 9], dtype=np.uint8)


def idx(array, code=0x08):
    return struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(IMAGES))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(LABELS)))
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(IMAGES[:2])))
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(LABELS[:2])))
    return tmp_path


def test_a_folder_gives_its_training_part(folder):
    data = load(folder)
    np.testing.assert_array_equal(data.x[:, 0].numpy(), IMAGES)
    assert data.y.tolist() == LABELS.tolist()
    assert data.x.shape == (6, 1, 5, 4)


def test_a_file_finds_its_labels(folder):
    data = load(folder / "t10k-images-idx3-ubyte.gz")
    assert data.y.tolist() == [3, 1]


def test_a_file_without_labels_has_none(folder):
    (folder / "train-labels-idx1-ubyte.gz").unlink()
    assert load(folder / "train-images-idx3-ubyte").y is None


@pytest.mark.parametrize(
    ("code", "dtype"), [(0x08, "u1"), (0x09, "i1"), (0x0B, ">i2"), (0x0C, ">i4"), (0x0D, ">f4"), (0x0E, ">f8")]
)
def test_every_type_of_number(tmp_path, code, dtype):
    numbers = np.array([[1, -2], [3, 4]]).astype(dtype)
    (tmp_path / "numbers.idx").write_bytes(idx(numbers, code))
    assert load(tmp_path / "numbers.idx").x.double().tolist() == numbers.astype(float).tolist()


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    "content",
    [
        idx(IMAGES)[:-1],
        idx(IMAGES) + b"\0",
        idx(IMAGES)[:9],
        struct.pack(">HBB", 0, 0x08, 3),
        struct.pack(">HBB2I", 0, 0x08, 2, 2**31, 4) + b"\0" * 10,
    ],
    ids=["short", "long", "half a header", "no sizes", "claims 8 GiB"],
)
def test_a_damaged_file_is_an_error(tmp_path, content, zipped):
    (tmp_path / "x.idx").write_bytes(gzip.compress(content) if zipped else content)
    with pytest.raises((DataError, MemoryBudgetError)):
        load(tmp_path / "x.idx")


def test_half_a_gzip_is_an_error(tmp_path):
    (tmp_path / "x-idx3-ubyte.gz").write_bytes(gzip.compress(idx(IMAGES))[:-20])
    with pytest.raises(DataError):
        load(tmp_path / "x-idx3-ubyte.gz")


def test_a_header_above_the_budget_is_refused_before_it_is_read(tmp_path):
    (tmp_path / "x.gz").write_bytes(gzip.compress(idx(np.zeros((100, 100), np.uint8))))
    with pytest.raises(MemoryBudgetError, match="10,000 bytes"):
        load(tmp_path / "x.gz", max_memory=9_999)


def test_gzip_of_something_else_is_an_error(tmp_path):
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"not an array at all"))
    with pytest.raises(DataError, match="does not begin as IDX files do"):
        load(tmp_path / "x.gz")


def test_two_sets_of_images_need_a_choice(folder):
    (folder / "train-images-idx3-ubyte").rename(folder / "emnist-images-idx3-ubyte")
    with pytest.raises(DataError, match="give the path of the file itself"):
        load(folder)
