"""The state on disk: whole or not at all, and every kind of damage a sentence."""

from __future__ import annotations

import hashlib
import io
import pickle

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curvlab.errors import CheckpointError, CurvlabError
from curvlab.training.state_file import _MAGIC, read_state, write_state

CONTENT = {"x": torch.arange(5.0), "nested": {"list": [1, None, "a"], "step": 3}}


def test_round_trip(tmp_path):
    path = tmp_path / "s"
    write_state(path, CONTENT)
    found = read_state(path)
    assert torch.equal(found["x"], CONTENT["x"])
    assert found["nested"] == CONTENT["nested"]
    assert [one.name for one in tmp_path.iterdir()] == ["s"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10**6), flip=st.integers(1, 255), cut=st.booleans())
def test_any_damage_is_one_sentence(tmp_path, place, flip, cut):
    path = tmp_path / "s"
    write_state(path, CONTENT)
    data = bytearray(path.read_bytes())
    place %= len(data)
    if cut:
        del data[place:]
    else:
        data[place] ^= flip
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"damaged|is not a training state") as error:
        read_state(path)
    assert "\n" not in str(error.value)


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def test_code_in_a_state_is_not_run(tmp_path, capsys):
    path, buffer = tmp_path / "s", io.BytesIO()
    torch.save({"x": Evil()}, buffer)
    for body in (buffer.getvalue(), pickle.dumps(Evil())):
        path.write_bytes(_MAGIC + hashlib.sha256(body).digest() + body)
        with pytest.raises(CheckpointError, match="cannot be read"):
            read_state(path)
    assert capsys.readouterr().out == ""


def test_no_state_and_a_folder_in_its_place(tmp_path):
    with pytest.raises(CheckpointError, match="no run to continue"):
        read_state(tmp_path / "none")
    with pytest.raises(CheckpointError, match="is a folder"):
        read_state(tmp_path)


def test_what_cannot_be_written_leaves_the_older_state(tmp_path, monkeypatch):
    path = tmp_path / "s"
    write_state(path, CONTENT)
    before = path.read_bytes()

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CurvlabError, match="No space left"):
        write_state(path, {"x": 1})
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["s"]
