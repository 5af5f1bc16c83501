"""HDF5 files with bytes changed: sizes, collections and indices that lie, cuts anywhere."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hostile.refusal import refusal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curvlab.errors import CurvlabError
from curvlab.formats.load import load

KERNEL = np.arange(12, dtype="f4").reshape(4, 3)


def honest(file: h5py.File) -> None:
    file["dense/kernel"] = KERNEL
    file["dense/bias"] = np.zeros(3, "f4")


def whole() -> bytes:
    """A small file with groups, attributes, chunks and strings."""
    import io

    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        honest(file)
        file.attrs["layer_names"] = ["dense"]
        file["dense"].attrs["weight_names"] = ["kernel", "bias"]
        file["conv/kernel"] = np.ones((3, 3, 2, 4), "f4")
    return stream.getvalue()


WHOLE = whole()


def test_a_collection_of_strings_that_never_ends(tmp_path: Path) -> None:
    """libhdf5 itself would not come back: the free space at the end of the collection is said to be empty."""
    at = WHOLE.index(b"GCOL")
    content = bytearray(WHOLE)
    position = at + 16
    while content[position : position + 2] != b"\0\0":
        length = int.from_bytes(content[position + 8 : position + 16], "little")
        position += 16 + (length + 7) // 8 * 8
    content[position + 8 : position + 16] = bytes(8)
    path = tmp_path / "model.h5"
    path.write_bytes(content)
    checkpoint = load(path)
    assert set(checkpoint.tensors) == {"conv.weight", "dense.weight", "dense.bias"}
    assert any("not read" in note for note in checkpoint.notes)


def test_an_index_of_pieces_that_leads_in_a_circle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """libhdf5 itself would not come back: a node of the index is its own child."""
    path = tmp_path / "model.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("conv/kernel", data=np.ones((3, 3, 2, 4), "f4"), compression="gzip", shuffle=True)
    assert torch.equal(load(path).tensors["conv.weight"], torch.ones(4, 2, 3, 3))
    content = bytearray(path.read_bytes())
    node = content.index(b"TREE\x01")
    content[node + 5] = 1  # a node above others
    child = node + 24 + 8 + 8 * 5  # behind the node's head and its first key: size, mask, five offsets
    content[child : child + 8] = node.to_bytes(8, "little")
    path.write_bytes(content)
    monkeypatch.setattr("curvlab.formats.hdf5.chunks.SECONDS", 3.0)
    assert "is a damaged HDF5 file" in refusal(path)


def test_unusual_sizes_are_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    path.write_bytes(WHOLE[:14] + b"\x04" + WHOLE[15:])
    assert "its first bytes are wrong" in refusal(path)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_truncated_files(share: float, tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    path.write_bytes(WHOLE[: max(16, int(len(WHOLE) * share))])
    assert "damaged HDF5 file" in refusal(path)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.lists(st.tuples(st.integers(8, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_damaged_files_are_read_or_refused(edits: list[tuple[int, int]], tmp_path: Path) -> None:
    content = bytearray(WHOLE)
    for position, value in edits:
        content[position] = value
    path = tmp_path / "model.h5"
    path.write_bytes(content)
    try:
        checkpoint = load(path)
        for name in checkpoint.tensors:
            checkpoint.tensors[name]
    except CurvlabError as error:
        sentence = str(error)
    else:
        sentence = ""
    assert sentence.isprintable()
