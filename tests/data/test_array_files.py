"""Arrays from files: who is x and who is y, types, damage, and files that would like to run something."""

from __future__ import annotations

import io
import os
import struct
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from curvlab.data import load
from curvlab.errors import DataError

X = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
Y = np.array([0, 1, 2, 1])


def write(path, arrays):
    """The same arrays as any of the formats, by suffix."""
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".safetensors":
        save_file({key: torch.from_numpy(value.copy()) for key, value in arrays.items()}, path)
    else:
        torch.save({key: torch.from_numpy(value.copy()) for key, value in arrays.items()}, path)
    return path


@pytest.mark.parametrize("suffix", ["npz", "safetensors", "pt"])
@pytest.mark.parametrize(
    "keys",
    [("x", "y"), ("X", "Y"), ("data", "target"), ("images", "labels"), ("input_ids", "labels"), ("x_train", "y_train")],
)
def test_pairs_are_found_by_name(tmp_path, suffix, keys):
    data = load(write(tmp_path / f"d.{suffix}", {keys[1]: Y, keys[0]: X}))
    np.testing.assert_array_equal(data.x.numpy(), X)
    np.testing.assert_array_equal(data.y.numpy(), Y)
    assert (data.task, data.name, data.synthetic) == ("classification", "d", False)


@pytest.mark.parametrize("suffix", ["npz", "pt"])
def test_two_arrays_without_known_names_are_taken_in_order(tmp_path, suffix):
    data = load(write(tmp_path / f"d.{suffix}", {"observed": X, "answers": Y}))
    np.testing.assert_array_equal(data.x.numpy(), X)
    np.testing.assert_array_equal(data.y.numpy(), Y)


def test_the_training_part_is_taken_and_the_rest_is_told(tmp_path):
    data = load(write(tmp_path / "d.npz", {"x_test": X[:1], "y_test": Y[:1], "y_train": Y, "x_train": X}))
    assert len(data) == 4
    assert data.y.tolist() == Y.tolist()
    assert "x_test" in data.notes[0]


def test_one_array_is_the_inputs(tmp_path):
    assert load(write(tmp_path / "d.safetensors", {"whatever": X})).y is None
    np.save(tmp_path / "d.npy", X)
    np.testing.assert_array_equal(load(tmp_path / "d.npy").x.numpy(), X)


def test_a_saved_pair_and_a_saved_tensor(tmp_path):
    torch.save((torch.from_numpy(X), torch.from_numpy(Y)), tmp_path / "pair.pt")
    torch.save(torch.from_numpy(X), tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    assert load(tmp_path / "pair.pt").y.tolist() == Y.tolist()
    assert load(tmp_path / "x.pt").x.shape == X.shape


def test_content_decides_not_the_suffix(tmp_path):
    path = write(tmp_path / "d.npz", {"x": X}).rename(tmp_path / "d.jpeg")
    assert load(path).x.shape == X.shape


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", ">i4", "u4", "i8", "?", "f2", ">f4", "f8", "g"])
def test_every_type_of_number_arrives_with_its_values(tmp_path, dtype):
    np.savez(tmp_path / "d.npz", x=np.arange(6).reshape(3, 2).astype(dtype))
    wanted = np.arange(6).reshape(3, 2).astype(bool) if dtype == "?" else np.arange(6).reshape(3, 2)
    assert load(tmp_path / "d.npz").x.double().tolist() == wanted.astype(float).tolist()


@pytest.mark.parametrize("order", ["C", "F"])
def test_axes_survive_either_memory_order(tmp_path, order):
    np.savez(tmp_path / "d.npz", x=np.asarray(X, order=order))
    np.testing.assert_array_equal(load(tmp_path / "d.npz").x.numpy(), X)


def test_a_column_of_whole_targets_becomes_a_vector_and_real_targets_stay(tmp_path):
    assert load(write(tmp_path / "a.npz", {"x": X, "y": Y[:, None]})).y.shape == (4,)
    real = load(write(tmp_path / "b.npz", {"x": X, "y": Y[:, None] / 2}))
    assert real.y.shape == (4, 1)
    assert real.task == "regression"


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"x": X, "y": Y[:2]}, "do not pair up"),
        ({"x": X[:0]}, "no example"),
        ({"x": np.where(X == 3, np.nan, X)}, "1 values that are not finite"),
        ({"x": X, "y": np.array([0.0, np.inf, 1.0, 2.0])}, "not finite in its targets"),
        ({"a": X, "b": X, "c": Y}, "none of them is named as inputs"),
        ({"x": np.float32(3.0)}, "no example"),
    ],
)
def test_arrays_that_are_no_data_are_explained(tmp_path, arrays, sentence):
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(DataError, match=sentence):
        load(tmp_path / "d.npz")


class Bomb:
    """A pickle that leaves a file behind when it is run."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_nothing_in_a_file_is_run(tmp_path):
    torch.save({"x": torch.ones(2, 2), "y": Bomb(tmp_path / "ran")}, tmp_path / "bomb.pt")
    np.savez(tmp_path / "bomb.npz", x=np.array([Bomb(tmp_path / "ran")], dtype=object))
    np.save(tmp_path / "bomb.npy", np.array([Bomb(tmp_path / "ran")], dtype=object), allow_pickle=True)
    for name in ("bomb.pt", "bomb.npz", "bomb.npy"):
        with pytest.raises(DataError):
            load(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_a_shape_that_the_bytes_do_not_have_allocates_nothing(tmp_path):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (549755813888,), }"
    header += b" " * (63 - (10 + len(header)) % 64) + b"\n"
    npy = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 8
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x.npy", npy)
    (tmp_path / "d.npy").write_bytes(npy)
    for name in ("d.npz", "d.npy"):
        with pytest.raises(DataError, match="bytes do not match"):
            load(tmp_path / name)


@pytest.mark.parametrize("suffix", ["npz", "npy", "pt", "safetensors"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.97])
def test_a_file_cut_off_is_an_error_and_never_wrong_data(tmp_path, suffix, share):
    path = tmp_path / f"d.{suffix}"
    if suffix == "npy":
        np.save(path, np.ones((50, 40)))
    else:
        write(path, {"x": np.ones((50, 40)), "y": np.arange(50)})
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DataError):
        load(path)


def test_text_beside_numbers_is_ignored(tmp_path):
    np.savez(tmp_path / "d.npz", x=X, y=Y, names=np.array(["a", "b"]))
    assert load(tmp_path / "d.npz").x.shape == X.shape


def test_an_archive_that_is_neither_numpy_nor_torch(tmp_path):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("readme.txt", "hello")
    (tmp_path / "d.zip").write_bytes(content.getvalue())
    with pytest.raises(DataError, match="plain tensors"):
        load(tmp_path / "d.zip")
