"""Dishonest files of PyTorch's old format: refused in one sentence, in little time and memory."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hostile.refusal import refusal
from hostile.torch_bytes import (
    LEGACY_MAGIC_PICKLE,
    Storage,
    legacy,
    tensor,
    weights,
)

from curvlab.formats.torch.pickle_trace import LEGACY_MAGIC

OLD: dict[str, tuple[Callable[[], bytes], str]] = {
    "cut in the storage": (lambda: legacy(weights())[:-1], "ends 1 bytes before"),
    "cut in the count": (lambda: legacy(weights())[:-20], "ends 20 bytes before"),
    "cut in the pickle": (lambda: legacy(weights())[:150], "pickle cannot be followed"),
    "the magic number alone": (lambda: LEGACY_MAGIC_PICKLE, "pickle cannot be followed"),
    "another count": (lambda: legacy(weights(), count=5), "has 5 elements instead of 4"),
    "a count of 2^60": (lambda: legacy(weights(), count=2**60), "instead of 4"),
    "storages that no tensor has": (lambda: legacy(weights(), keys=("0", "1")), "does not match the tensors"),
    "no storages": (lambda: legacy(weights(), keys=()), "does not match the tensors"),
    "storages that are numbers": (lambda: legacy(weights(), keys=(7,)), "does not match the tensors"),
    "a list of storages that is none": (lambda: legacy(weights(), keys=[["0"]]), "does not match the tensors"),
    "one storage listed twice for two": (
        lambda: legacy({"a": tensor((4,)), "b": tensor((4,), storage=Storage(4, "1"))}, keys=("0", "0")),
        "does not match the tensors",
    ),
    "one storage of two sizes": (
        lambda: legacy({"a": tensor((2**40,), storage=Storage(2**40)), "b": tensor((4,))}),
        "describes one storage in two ways",
    ),
    "one storage of two types": (
        lambda: legacy({"a": tensor((4,), storage=Storage(4, "0", torch.DoubleStorage)), "b": tensor((4,))}),
        "describes one storage in two ways",
    ),
    "a key that is a number": (lambda: legacy({"a": tensor((4,), storage=Storage(4, 0))}), "a storage that cannot be"),
    "a view larger than its storage": (
        lambda: legacy({"w": tensor((2,), storage=Storage(4, "0", torch.FloatStorage, ("v", 3, 2)))}),
        "larger than the storage",
    ),
    "a tensor larger than its view": (
        lambda: legacy({"w": tensor((3,), storage=Storage(4, "0", torch.FloatStorage, ("v", 0, 2)))}),
        "does not fit its storage of 2",
    ),
}


@pytest.mark.parametrize("name", OLD)
def test_dishonest_old_files(name: str, tmp_path: Path) -> None:
    make, words = OLD[name]
    path = tmp_path / "m.pt"
    path.write_bytes(make())
    assert words in refusal(path)


def test_an_old_file_that_is_a_tar_archive_too_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # torch unpacks a tar archive that a file begins with before it looks for its own magic number.
    info = tarfile.TarInfo((LEGACY_MAGIC_PICKLE + b"x").decode("latin-1"))
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT, "latin-1", "strict"))
    path = tmp_path / "m.pt"
    path.write_bytes(bytes(header) + bytes(1024))
    assert LEGACY_MAGIC in path.read_bytes()[:32]
    monkeypatch.setattr(tarfile, "open", lambda *_, **__: pytest.fail("opened as a tar archive"))
    assert "before version 0.4 (tar)" in refusal(path)
