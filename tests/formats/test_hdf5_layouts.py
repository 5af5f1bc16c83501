"""What else HDF5 files of Keras hold: names as Keras 2 wrote them, element types, compression, ties, optimizers."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from curvlab.errors import MemoryBudgetError
from curvlab.formats.hdf5.file import read_hdf5

# Keras' own, where it writes its variables.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def keras2(path: Path, weights: dict[str, dict[str, np.ndarray]], root: str = "model_weights") -> Path:
    """A file as Keras 2 wrote it: names of layers and weights in lists of bytes, weights with ":0"."""
    with h5py.File(path, "w") as file:
        top = file.create_group(root) if root else file
        top.attrs["layer_names"] = np.array([name.encode() for name in weights], dtype="S40")
        for layer, own in weights.items():
            group = top.create_group(layer)
            group.attrs["weight_names"] = np.array([name.encode() for name in own], dtype="S60")
            for name, value in own.items():
                group[name] = value
    return path


@pytest.mark.parametrize("root", ["model_weights", ""])
def test_files_of_keras_2(root: str, tmp_path: Path) -> None:
    kernel = np.arange(6, dtype="f4").reshape(2, 3)
    weights = {
        "zeta": {"zeta_1/kernel:0": kernel, "zeta_1/bias:0": np.zeros(3, "f4")},
        "drop": {},
        "alpha": {"alpha/kernel:0": kernel.T.copy(), "alpha/bias:0": np.zeros(2, "f4")},
        "model_1": {"beta/kernel:0": kernel},
        "rnn": {
            "rnn/lstm_cell_2/kernel:0": np.zeros((2, 8), "f4"),
            "rnn/lstm_cell_2/recurrent_kernel:0": np.zeros((2, 8), "f4"),
        },
    }
    stored = read_hdf5(keras2(tmp_path / "model.h5", weights, root))
    assert list(stored.specs) == [
        "zeta.weight",
        "zeta.bias",
        "alpha.weight",
        "alpha.bias",
        "model_1.beta.weight",
        "rnn.weight_ih_l0",
        "rnn.weight_hh_l0",
    ]
    assert stored.ordered
    assert torch.equal(stored.tensors["zeta.weight"], torch.tensor(kernel).mT)


def test_long_lists_of_names_are_cut_into_parts(tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names0"] = np.array([b"b"])
        file.attrs["layer_names1"] = np.array([b"a"])
        for name in "ab":
            file.create_group(name).attrs["weight_names"] = np.array([f"{name}/kernel:0".encode()])
            file[f"{name}/{name}/kernel:0"] = np.zeros((2, 3), "f4")
    assert list(read_hdf5(path).specs) == ["b.weight", "a.weight"]


def test_element_types(tmp_path: Path) -> None:
    path = tmp_path / "types.h5"
    wanted = {
        name: torch.tensor([0, 1, 1]).to(getattr(torch, name))
        for name in ("float64", "float32", "float16", "int64", "int32", "int8", "uint8", "bool", "complex64")
    }
    with h5py.File(path, "w") as file:
        for name, tensor in wanted.items():
            file[f"a/{name}"] = tensor.numpy()
        file["a/big"] = np.arange(3, dtype=">f4")
        bits = torch.tensor([0.0, 1.5, -2.0]).bfloat16().view(torch.int16).numpy()
        file.create_dataset("a/bfloat16", data=bits.view("V2"))
        file["a/text"] = "not a number"
        file["a/texts"] = np.array([b"x", b"y"])
        file["a/pairs"] = np.zeros(2, dtype=[("x", "f4"), ("y", "i4")])
        file["a/nothing"] = h5py.Empty("f4")
    stored = read_hdf5(path)
    for name, tensor in wanted.items():
        assert stored.specs[f"a.{name}"].dtype == name
        assert torch.equal(stored.tensors[f"a.{name}"], tensor)
    assert torch.equal(stored.tensors["a.big"], torch.arange(3.0))
    assert torch.equal(stored.tensors["a.bfloat16"], torch.tensor([0.0, 1.5, -2.0], dtype=torch.bfloat16))
    assert len(stored.specs) == len(wanted) + 2
    assert any("a/nothing" in note and "a/pairs" in note and "a/text" in note for note in stored.notes)


def test_compressed_and_tied_tensors_and_optimizers(tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    kernel = np.random.default_rng(0).normal(size=(40, 30)).astype("f4")
    with h5py.File(path, "w") as file:
        file.create_dataset("one/kernel", data=kernel, compression="gzip", shuffle=True, chunks=(8, 8))
        file["two/kernel"] = file["one/kernel"]  # a second name of the same numbers
        file["optimizer_weights/adam/one/kernel/m:0"] = kernel
    stored = read_hdf5(path)
    assert list(stored.specs) == ["one.weight"]
    assert stored.aliases == {"two.weight": "one.weight"}
    assert torch.equal(stored.tensors["one.weight"], torch.tensor(kernel).mT)
    assert any("optimizer" in note for note in stored.notes)
    with pytest.raises(MemoryBudgetError, match="takes 4800 bytes"):
        read_hdf5(path, max_memory=4000).tensors["one.weight"]


def test_a_file_that_changed_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    keras2(path, {"a": {"a/kernel:0": np.zeros((2, 3), "f4")}})
    stored = read_hdf5(path)
    path.unlink()
    keras2(path, {"a": {"a/kernel:0": np.zeros((5, 3), "f4")}})
    with pytest.raises(Exception, match="changed while it was being read"):
        stored.tensors["a.weight"]
