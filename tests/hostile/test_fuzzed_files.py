"""Valid files with bytes changed, cut out or added: they load, or are refused in one sentence; nothing else happens."""

from __future__ import annotations

import argparse
import io
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save as save_safetensors
from torch import nn

from curvlab.errors import CheckpointError
from curvlab.formats.curvlab_file.file import save as save_own
from curvlab.formats.load import load

WEIGHTS = {"conv.weight": torch.ones(3, 2, 2, 2), "conv.bias": torch.ones(3), "fc.weight": torch.ones(4, 3)}


def _torch(legacy: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(WEIGHTS, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def _own() -> bytes:
    path = Path("own")
    save_own(path, nn.Sequential(nn.Linear(3, 2), nn.ReLU()), data="digits")
    return path.read_bytes()


def _closed(legacy: bool) -> bytes:
    """A checkpoint with settings of a foreign class: the road of the inert reader."""
    buffer = io.BytesIO()
    content = {"state_dict": WEIGHTS, "args": argparse.Namespace(lr=0.1)}
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def _scripted() -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls the format deprecated
        torch.jit.save(torch.jit.script(nn.Linear(3, 2)), buffer)
    return buffer.getvalue()


def _exported() -> bytes:
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(nn.Linear(3, 2), (torch.ones(1, 3),)), buffer)
    return buffer.getvalue()


VALID: dict[str, Callable[[], bytes]] = {
    "zip that stays closed": lambda: _closed(legacy=False),
    "legacy that stays closed": lambda: _closed(legacy=True),
    "bare pickle": lambda: pickle.dumps(WEIGHTS),
    "torchscript": _scripted,
    "pt2": _exported,
    "safetensors": lambda: save_safetensors(WEIGHTS),
    "zip": lambda: _torch(legacy=False),
    "legacy": lambda: _torch(legacy=True),
    "own": _own,
}


@st.composite
def damage(draw: st.DrawFn, size: int) -> tuple[list[tuple[int, int]], int, bytes]:
    """Bytes to change (place, value), the length to cut to, bytes to append."""
    # Formats keep their structure at both ends; half of the changes go there.
    ends = st.one_of(st.integers(0, min(300, size - 1)), st.integers(max(0, size - 700), size - 1))
    places = st.one_of(st.integers(0, size - 1), ends)
    changes = draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=4))
    length = draw(st.one_of(st.just(size), st.integers(0, size)))
    return changes, length, draw(st.one_of(st.just(b""), st.binary(max_size=20)))


def outcome(path: Path) -> str:
    """What came of reading all of a file: nothing to say, or the sentence of its refusal."""
    try:
        for tensor in load(path).tensors.values():
            tensor.float().sum()
    except CheckpointError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", VALID)
def test_damaged_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    valid, path = VALID[name](), tmp_path / "model"
    path.write_bytes(valid)
    assert load(path).layers

    @settings(max_examples=250, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(damage(len(valid)))
    def check(harm: tuple[list[tuple[int, int]], int, bytes]) -> None:
        changes, length, more = harm
        content = bytearray(valid)
        for place, value in changes:
            content[place] = value
        path.write_bytes(bytes(content[:length]) + more)
        assert outcome(path).isprintable()

    check()
