"""Files of reports: whole or not at all."""

from __future__ import annotations

import os
import stat
import threading

import pytest

from curvlab.document.files import write
from curvlab.errors import CurvlabError


def test_a_new_file_gets_the_permissions_of_any_new_file(tmp_path):
    write("κ\n", tmp_path / "a.json")
    (tmp_path / "b").touch()
    assert (tmp_path / "a.json").read_bytes() == "κ\n".encode()
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == stat.S_IMODE((tmp_path / "b").stat().st_mode)


def test_an_old_file_is_replaced_and_keeps_its_permissions(tmp_path):
    (tmp_path / "a").write_text("old")
    (tmp_path / "a").chmod(0o640)
    write("new", tmp_path / "a")
    assert (tmp_path / "a").read_text() == "new"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_failure_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("old")
    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(CurvlabError, match="No space left"):
        write("new", tmp_path / "a")
    assert (tmp_path / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def full(*_):
    raise OSError(28, "No space left on device")


def test_a_link_is_followed_and_stays(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write("new", tmp_path / "link")
    assert (tmp_path / "real").read_text() == "new"
    assert (tmp_path / "link").is_symlink()


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    got = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_text()))
    reader.start()
    write("through", tmp_path / "pipe")
    reader.join(10)
    assert got == ["through"]
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.parametrize("path", ["missing/a.json", "."])
def test_what_cannot_be_written_is_one_sentence(tmp_path, path):
    with pytest.raises(CurvlabError, match="cannot be written"):
        write("x", tmp_path / path)
