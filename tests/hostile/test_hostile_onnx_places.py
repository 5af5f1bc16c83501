"""Where external data of ONNX are said to be: the model's own folder only, and what was checked is what is read."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hostile.onnx_bytes import (
    Folder,
    external,
    graph,
    info,
    node,
    opened,
    refusal,
)

from curvlab.errors import CheckpointError
from curvlab.formats.onnx.file import read_onnx

# Where the weights are said to stand -> what the sentence must say; "secret.bin" lies outside, "near.bin" beside.
PLACES: dict[str, tuple[dict[str, str], str]] = {
    "nowhere": ({}, "no plain path"),
    "outside": ({"location": "../secret.bin"}, "'../secret.bin' has '..' in it"),
    "outside and back": ({"location": "inner/../../secret.bin"}, "has '..' in it"),
    "inside, by a way back": ({"location": "inner/../near.bin"}, "has '..' in it"),
    "a hard link": ({"location": "hard.bin"}, "has a second name elsewhere (a hard link)"),
    "an absolute path": ({"location": "/etc/hostname"}, "no plain path"),
    "another drive": ({"location": "C:\\secret.bin"}, "no plain path"),
    "backslashes": ({"location": "..\\secret.bin"}, "no plain path"),
    "a zero byte": ({"location": "near.bin\0.txt"}, "no plain path"),
    "an escape sequence": ({"location": "\x1b[2Jnear.bin"}, "is not there"),
    "a link": ({"location": "link.bin"}, "is a link"),
    "a link on the way": ({"location": "linked/secret.bin"}, "is a link"),
    "a folder": ({"location": "inner"}, "no regular file"),
    "a pipe": ({"location": "pipe.bin"}, "no regular file"),
    "a missing file": ({"location": "lost.bin"}, "is not there"),
    "a file too short": ({"location": "short.bin"}, "which has 3"),
    "an offset past the end": ({"location": "near.bin", "offset": "1000"}, "which has 64"),
    "a negative offset": ({"location": "near.bin", "offset": "-16"}, "not a number of bytes"),
    "a huge offset": ({"location": "near.bin", "offset": "9" * 5000}, "not a number of bytes"),
    "an offset of 2^63": ({"location": "near.bin", "offset": str(2**63 - 1)}, "which has 64"),
    "a huge length": ({"location": "near.bin", "length": str(2**62)}, "its shape needs 16"),
    "a length too short": ({"location": "near.bin", "length": "4"}, "its shape needs 16"),
    "an offset in words": ({"location": "near.bin", "offset": "０１"}, "not a number of bytes"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A model's folder, a file beside it that nobody may read, and ways that lead there."""
    secret = tmp_path / "secret.bin"
    secret.write_bytes(struct.pack("<4f", 6, 6, 6, 6) * 4)
    here = tmp_path / "model"
    (here / "inner").mkdir(parents=True)
    (here / "near.bin").write_bytes(struct.pack("<16f", *range(16)))
    (here / "inner" / "near.bin").write_bytes(struct.pack("<16f", *range(16)))
    (here / "short.bin").write_bytes(b"abc")
    (here / "link.bin").symlink_to(secret)
    (here / "hard.bin").hardlink_to(secret)
    (here / "linked").symlink_to(tmp_path)
    os.mkfifo(here / "pipe.bin")
    return here


@pytest.mark.parametrize(("entries", "said"), PLACES.values(), ids=PLACES)
def test_external_data_are_read_from_the_models_own_folder_only(
    folder: Folder, entries: dict[str, str], said: str
) -> None:
    path = folder / "model.onnx"
    add = node("Add", ["x", "far"], ["y"])
    path.write_bytes(graph([add], [external(**entries)], inputs=[info("x", (4,))]).SerializeToString())
    sentence = refusal(path)
    assert said in sentence
    assert "'far'" in sentence
    assert "malformed" not in sentence  # the model is well formed: what is wrong lies beside it
    assert "leads out" not in sentence


def test_external_data_may_not_change_into_a_link_after_they_were_checked(folder: Folder) -> None:
    path = folder / "model.onnx"
    add = node("Add", ["x", "far"], ["y"])
    model = graph([add], [external(location="near.bin")], inputs=[info("x", (4,))])
    path.write_bytes(model.SerializeToString())
    stored = read_onnx(path)
    (folder / "near.bin").unlink()
    (folder / "near.bin").symlink_to(folder.parent / "secret.bin")
    with pytest.raises((CheckpointError, OSError)):
        stored.tensors["far"]


def test_external_data_may_not_change_into_another_file_after_they_were_checked(folder: Folder) -> None:
    path = folder / "model.onnx"
    model = graph([node("Add", ["x", "far"], ["y"])], [external(location="near.bin")], inputs=[info("x", (4,))])
    path.write_bytes(model.SerializeToString())
    stored = read_onnx(path)
    (folder / "near.bin").unlink()
    (folder / "near.bin").hardlink_to(folder.parent / "secret.bin")
    with pytest.raises(CheckpointError, match="changed while it was being read"):
        stored.tensors["far"]


@pytest.mark.parametrize(("location", "offset"), [("near.bin", 0), ("inner/near.bin", 16)])
def test_honest_external_data_are_read(folder: Folder, location: str, offset: int) -> None:
    path = folder / "model.onnx"
    add = node("Add", ["x", "far"], ["y"])
    entries = {"location": location, "offset": str(offset), "length": "16"}
    path.write_bytes(graph([add], [external(**entries)], inputs=[info("x", (4,))]).SerializeToString())
    stored = read_onnx(path)
    assert stored.tensors["far"].tolist() == [offset / 4 + i for i in range(4)]
    assert stored.files == (path, folder / location)
    assert opened(path).module is not None


@pytest.mark.parametrize("inputs", [["x", "weight"], []], ids=["too many", "none"])
def test_inputs_that_no_operator_has_are_told_of_without_words_of_python(inputs: list[str], folder: Folder) -> None:
    path = folder / "model.onnx"
    path.write_bytes(graph([node("Relu", inputs, ["y"], name="bend")]).SerializeToString())
    (note,) = opened(path).notes
    assert "node 'bend' (Relu) cannot be run: its inputs or attributes are not those of the operator" in note
    assert "positional" not in note
