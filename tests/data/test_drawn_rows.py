"""--samples limits what is read: the rows are those of a file read as a whole, and memory holds no others."""

from __future__ import annotations

import gzip
import struct
import tracemalloc

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from curvlab.data import load
from curvlab.data.tokens import Tokens
from curvlab.errors import MemoryBudgetError

X = np.random.default_rng(0).integers(0, 256, (70, 5, 3)).astype(np.float32)
Y = np.arange(70) % 7


def idx(array):
    kinds = {np.dtype(np.uint8): 8, np.dtype(np.float32): 13}
    head = struct.pack(">HBB", 0, kinds[array.dtype], array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


def written(folder, kind):
    """The same examples in a file of this kind."""
    path = folder / f"d.{kind}"
    tensors = {"x": torch.from_numpy(X.copy()), "y": torch.from_numpy(Y.copy())}
    match kind:
        case "npz":
            np.savez(path, x=X, y=Y)
        case "compressed.npz":
            np.savez_compressed(path, x=X, y=Y)
        case "fortran.npz":
            np.savez_compressed(path, x=np.asfortranarray(X), y=Y)
        case "npy" | "fortran.npy":
            np.save(path, np.asfortranarray(X) if kind == "fortran.npy" else X)
        case "safetensors":
            save_file(tensors, path)
        case "pt":
            torch.save(tensors, path)
        case "old.pt":
            torch.save(tensors, path, _use_new_zipfile_serialization=False)
        case "idx":
            (folder / "train-images-idx3-ubyte").write_bytes(idx(X))
            (folder / "train-labels-idx1-ubyte").write_bytes(idx(Y.astype(np.uint8)))
            return folder
        case "idx.gz":
            (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(X)))
            (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(Y.astype(np.uint8))))
            return folder
    return path


KINDS = ["npz", "compressed.npz", "fortran.npz", "npy", "fortran.npy", "safetensors", "pt", "old.pt", "idx", "idx.gz"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("piece", [1, 100, 10**6])
@pytest.mark.parametrize("samples", [1, 9, 69, 70, 100])
def test_the_rows_are_those_of_the_whole_file(tmp_path, monkeypatch, kind, piece, samples):
    monkeypatch.setattr("curvlab.data.streamed.PIECE", piece)
    path = written(tmp_path, kind)
    whole, found = load(path).take(samples, seed=3), load(path, samples=samples, seed=3)
    assert torch.equal(found.x, whole.x)
    assert found.notes == whole.notes
    assert (found.y is None) == (whole.y is None) == kind.endswith("npy")
    assert found.y is None or torch.equal(found.y, whole.y)


def test_tokenised_text_too(tmp_path):
    ids = np.arange(60).reshape(20, 3)
    np.savez(tmp_path / "t.npz", input_ids=ids, attention_mask=np.ones_like(ids), labels=np.arange(20), other=ids)
    whole, found = load(tmp_path / "t.npz").take(4, 1), load(tmp_path / "t.npz", samples=4, seed=1)
    assert isinstance(found, Tokens)
    assert torch.equal(found.x, whole.x)
    assert torch.equal(found.beside["attention_mask"], whole.beside["attention_mask"])
    assert found.notes == whole.notes == ("arrays not used: other", "4 of 20 examples were drawn with seed 1")


@pytest.mark.parametrize("kind", ["npz", "npy", "safetensors", "pt", "idx"])
def test_memory_and_its_budget_are_of_the_rows_alone(tmp_path, monkeypatch, kind):
    examples = 2**18  # of 256 bytes: 64 MiB
    monkeypatch.setitem(globals(), "X", np.zeros((examples, 8, 8), np.float32))
    monkeypatch.setitem(globals(), "Y", np.zeros(examples, np.int64))
    path = written(tmp_path, kind)
    with pytest.raises(MemoryBudgetError, match=r"6[79],\d{3},\d{3} bytes"):
        load(path, max_memory=2**20)
    tracemalloc.start()
    try:
        found = load(path, samples=100, max_memory=2**20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(found) == 100
    assert peak < 40 * 2**20  # two pieces of 16 MiB, and what torch and the readers need for themselves
