"""PyTorch checkpoints from an enemy: nothing executed, nothing allocated on the word of the file."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile.refusal import refusal
from hostile.torch_bytes import (
    FRAMES,
    LEGACY_MAGIC_PICKLE,
    Calls,
    Storage,
    archive,
    legacy,
    tensor,
    weights,
)

from curvlab.formats.load import load


class _Changed:
    """An honest tensor, and what is to be done to it once it is made."""

    def __init__(self, size: Any, stride: Any, state: Any = None, pairs: Any = ()) -> None:
        self.made, self.state, self.pairs = tensor(size, stride), state, pairs

    def __reduce__(self) -> Any:
        return (*self.made.__reduce__(), self.state, None, iter(self.pairs) if self.pairs else None)


def _of_type(*arguments: Any) -> Calls:
    return Calls(torch._tensor._rebuild_from_type_v2, *arguments)


def _wrapped_tensor(size: Any, stride: Any) -> tuple[Any, ...]:
    rebuild, arguments = tensor(size, stride).__reduce__()
    return rebuild, torch.Tensor, arguments, {}


@pytest.mark.parametrize("frame", FRAMES)
def test_the_honest_frame_loads(frame: str, tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    path.write_bytes(FRAMES[frame](weights()))
    assert torch.equal(load(path).tensors["fc.weight"], torch.zeros(2, 2))


@pytest.mark.parametrize("frame", FRAMES)
def test_honest_wrappings_load(frame: str, tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    path.write_bytes(FRAMES[frame]({"w.weight": _of_type(*_wrapped_tensor((2, 2), (2, 1)))}))
    assert torch.equal(load(path).tensors["w.weight"], torch.zeros(2, 2))


def _laughs() -> Any:
    value: Any = {"x": 1}
    for _ in range(60):
        value = {"a": value, "b": value}
    return {"fc.weight": tensor((2, 2), (2, 1)), "x": value}


def _deep() -> Any:
    value: Any = {}
    for _ in range(200):
        value = {"a": value}
    return {"fc.weight": tensor((2, 2), (2, 1)), "x": value}


def _circle() -> dict[str, Any]:
    value = weights()
    value["self"] = [value]
    return value


# Values whose numbers or calls must be refused in both frames, and words of the sentence.
VALUES: dict[str, tuple[Callable[[], Any], str]] = {
    "larger than its storage": (lambda: {"w": tensor((2, 3), (3, 1))}, "does not fit its storage of 4 elements"),
    "beyond its storage": (lambda: {"w": tensor((2, 2), (2, 1), offset=1)}, "does not fit its storage"),
    "strides beyond its storage": (lambda: {"w": tensor((2, 2), (4, 1))}, "does not fit its storage"),
    "a petabyte of one number": (lambda: {"w": tensor((2**25, 2**25), (0, 0))}, "repeats a storage of 4 elements"),
    "no elements and 2^40": (lambda: {"w": tensor((0, 2**40), (1, 1))}, "no elements but a dimension"),
    "negative sizes": (lambda: {"w": tensor((-2, -2), (1, 1))}, "no proper storage, offset, sizes and strides"),
    "negative strides": (lambda: {"w": tensor((2,), (-1,), offset=1)}, "no proper storage"),
    "sizes that are text": (lambda: {"w": tensor(("2", "2"), (1, 1))}, "no proper storage"),
    "more strides than sizes": (lambda: {"w": tensor((2,), (1, 1))}, "1 dimensions has 2 strides"),
    "a tensor without arguments": (lambda: {"w": Calls(torch._utils._rebuild_tensor_v2)}, "no proper storage"),
    "larger than its storage, in two wrappings": (
        lambda: {"w": _of_type(torch._tensor._rebuild_from_type_v2, torch.Tensor, _wrapped_tensor((2, 3), (3, 1)), {})},
        "does not fit its storage of 4 elements",
    ),
    "larger than its storage afterwards": (
        lambda: {"w": _Changed((2, 2), (2, 1), state=(Storage(4), 0, (2**30,), (1,)))},
        "changes the result of 'torch._utils._rebuild_tensor_v2' afterwards",
    ),
    "written into afterwards": (
        lambda: {"w": _Changed((2, 2), (2, 1), pairs=[(0, 1.0)])},
        "changes the result of 'torch._utils._rebuild_tensor_v2' afterwards",
    ),
    "a storage of 2^60 elements": (
        lambda: {"w": tensor((2**60,), storage=Storage(2**60))},
        "instead of",
    ),
    "a storage of negative size": (lambda: {"w": tensor((2,), storage=Storage(-1))}, "a storage that cannot be"),
    "a storage of a network's class": (
        lambda: {"w": tensor((2,), storage=Storage(4, kind=torch.nn.Linear))},
        "a storage that cannot be",
    ),
    "a storage that is not in the file": (lambda: {"w": tensor((2,), storage=Storage(4, "../0"))}, "storage"),
    "a terabyte tensor": (lambda: weights(x=Calls(torch.Tensor, 10**12)), "calls for 'torch.Tensor'"),
    "a terabyte storage": (
        lambda: weights(x=Calls(torch.UntypedStorage, 10**12)),
        "calls for 'torch.storage.UntypedStorage'",
    ),
    "codecs that unpack": (
        lambda: weights(x=Calls(__import__("_codecs").encode, b"x", "zlib_codec")),
        "calls for '_codecs.encode'",
    ),
    "a billion laughs": (_laughs, "nests its values without end"),
    "deep tables": (_deep, "nests its values without end"),
    "a name of a megabyte": (lambda: {"x" * 10**6: tensor((2, 2), (2, 1))}, "a name of 1000000 characters"),
    "two tensors of one name": (
        lambda: {"a": {"b": tensor((2,))}, "a.b": tensor((2,), offset=1)},
        "two tensors named 'a.b'",
    ),
    "nothing": (dict, "storages|no tensors"),
}


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("name", VALUES)
def test_dishonest_values(name: str, frame: str, tmp_path: Path) -> None:
    make, words = VALUES[name]
    path = tmp_path / "m.pt"
    path.write_bytes(FRAMES[frame](make()))
    sentence = refusal(path)
    assert any(word in sentence for word in words.split("|")), sentence


@pytest.mark.parametrize("frame", FRAMES)
def test_a_table_inside_itself_is_walked_once(frame: str, tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    path.write_bytes(FRAMES[frame](_circle()))
    assert list(load(path).tensors) == ["fc.weight"]


def _touch(marker: Path) -> Calls:
    return Calls(os.mkdir, str(marker))


# Calls of foreign functions beside honest tensors: the tensors are recovered, the calls only named.
BESIDE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a call": (_touch, "mkdir"),
    "a terabyte of bytes": (lambda _: Calls(bytearray, 10**12), "__builtin__.bytearray"),
    "a call for a call": (lambda marker: Calls(exec, _touch(marker)), "exec"),
    "laughs": (lambda _: [_laughs()["x"], Calls(bytearray, 1)], "__builtin__.bytearray"),
    "a list of itself": (lambda _: _itself(), "__builtin__.bytearray"),
}


def _itself() -> list[Any]:
    items: list[Any] = [Calls(bytearray, 1)]
    items.append(items)
    return items


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("name", BESIDE)
def test_tensors_beside_foreign_calls_are_recovered(name: str, frame: str, tmp_path: Path) -> None:
    make, words = BESIDE[name]
    marker, path = tmp_path / "executed", tmp_path / "m.pt"
    path.write_bytes(FRAMES[frame]({"x": make(marker), "state_dict": weights()}))
    for trust in (False, True):
        checkpoint = load(path, trust=trust)
        assert torch.equal(checkpoint.tensors["fc.weight"], torch.zeros(2, 2))
        assert any(words in note for note in checkpoint.notes)
    assert not marker.exists()


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("name", VALUES)
def test_dishonest_values_beside_foreign_calls(name: str, frame: str, tmp_path: Path) -> None:
    """The inert road checks the same numbers: what it refuses without a foreign class it refuses with one."""
    make, _ = VALUES[name]
    path, value = tmp_path / "m.pt", make()
    path.write_bytes(FRAMES[frame]({"x": Calls(bytearray, 1), "y": value}))
    if name in TAMED:
        assert load(path).layers
    else:
        refusal(path)


# Calls that only torch's reader would make: beside a foreign class they are not made, and the honest tensor is read.
TAMED = frozenset(
    {"a terabyte tensor", "a terabyte storage", "codecs that unpack"}
    | {"written into afterwards", "larger than its storage afterwards"}
)


EXECUTING: dict[str, Callable[[Any], bytes]] = {
    "bare": lambda v: pickle.dumps(v, 2),
    "bare, newest": lambda v: pickle.dumps(v, 5),
    "bare, text": lambda v: pickle.dumps(v, 0),
    "zip": archive,
    "legacy": legacy,
    "legacy, before the content": lambda v: LEGACY_MAGIC_PICKLE + pickle.dumps(v, 2),
    "legacy, after the content": lambda v: legacy(weights())[:-24].rsplit(b"\x80\x02]", 1)[0] + pickle.dumps(v, 2),
}


@pytest.mark.parametrize("where", EXECUTING)
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_nothing_is_executed(where: str, suffix: str, tmp_path: Path) -> None:
    marker, path = tmp_path / "executed", tmp_path / f"m.{suffix}"
    path.write_bytes(EXECUTING[where]({"fc.weight": _touch(marker)}))
    sentence = refusal(path)
    assert "mkdir" in sentence or "legacy" in where
    refusal(path, trust=True)
    assert not marker.exists()


def test_the_executing_pickle_does_execute_elsewhere(tmp_path: Path) -> None:
    pickle.loads(EXECUTING["bare"](_touch(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()
