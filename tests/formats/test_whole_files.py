"""Files that are there completely or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from curvlab.errors import CheckpointError
from curvlab.formats.whole_file import whole_file


def test_the_older_file_is_there_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("old")
    with whole_file(path) as beside:
        beside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def half_written(path: Path, error: BaseException) -> None:
    with whole_file(path) as beside:
        beside.write_text("half")
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError()], ids=lambda error: type(error).__name__)
def test_an_error_inside_leaves_the_older_file_and_nothing_beside(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "f"
    path.write_text("old")
    with pytest.raises(type(error)):
        half_written(path, error)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_file_and_folder_are_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = []
    monkeypatch.setattr("os.fsync", lambda descriptor: flushed.append(stat.S_ISDIR(os.fstat(descriptor).st_mode)))
    with whole_file(tmp_path / "f") as beside:
        beside.write_text("new")
    assert flushed == [False, True]


@pytest.mark.parametrize("place", ["none/f", "file/f"])
def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(CheckpointError, match=r"^the list '.*' cannot be written: "),
        whole_file(tmp_path / place, "the list") as beside,
    ):
        beside.write_text("new")
    # The safetensors library has errors of its own.
    with pytest.raises(CheckpointError, match="cannot be written: "), whole_file(tmp_path / place) as beside:
        save_file({"x": torch.zeros(1)}, beside)
