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


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(3.5),
        torch.zeros(0, 4),
        torch.arange(12.0).reshape(3, 4).T,
        torch.arange(24.0).reshape(2, 3, 4).permute(1, 2, 0),
        torch.arange(12.0).reshape(3, 4)[:, :2],
        torch.ones(1).expand(3, 2),
        torch.tensor([True, False]),
        torch.arange(3, dtype=torch.bfloat16),
        torch.tensor([1 + 2j]).conj(),
        torch.arange(5, dtype=torch.uint8),
        torch.ones(3, 1).T,
    ],
    ids=["scalar", "empty", "by columns", "permuted", "part", "expanded", "bool", "bf16", "conj", "uint8", "thin"],
)
def test_tensors_come_back_with_their_numbers_and_their_order_in_memory(tmp_path, tensor):
    write_state(tmp_path / "s", {"before": torch.ones(1, dtype=torch.uint8), "x": tensor})
    found = read_state(tmp_path / "s")["x"]
    assert torch.equal(found, tensor)
    assert found.dtype == tensor.dtype
    gaps = tensor.stride() in ((4, 1), (0, 0)) and not tensor.is_contiguous()
    assert found.stride() == tensor.stride() or gaps or tensor.numel() == 0


def test_plain_values_come_back_with_their_types(tmp_path):
    values = {"a": (1, [2.5, None]), 3: {"b": True}, "inf": float("inf"), "text": "\x1b\u202e", "nested": [[], (), {}]}
    write_state(tmp_path / "s", values)
    assert read_state(tmp_path / "s") == values
    with pytest.raises(TypeError, match="cannot hold a set"):
        write_state(tmp_path / "s", {"x": {1}})
    assert read_state(tmp_path / "s") == values
