"""FOP's matrices in files from an enemy: each refused in one sentence before anything is allocated for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hostile.refusal import refusal
from hostile.test_hostile_safetensors import container, tensor

from curvlab.formats.load import load

FULL, LOW = {"form": "full", "norm": False}, {"form": "low-rank", "norm": False}
DATA = bytes(64)


def file(described: Any, factor: dict[str, Any] | None = None, weight: Any = (2, 2), **metadata: str) -> bytes:
    """A weight `[2, 2]`, a matrix for it, and what the metadata says of that (JSON unless it is text already)."""
    text = described if isinstance(described, str) else json.dumps(described)
    header = {"__metadata__": {"curvlab.fop": text, **metadata}, "w": tensor(0, 16, weight)}
    factor = factor or tensor(16, 32)
    return container({**header, "curvlab.fop.w": factor}, DATA[: factor["data_offsets"][1]])


ENEMY: dict[str, tuple[bytes, str]] = {
    "deep": (file("[" * 200_000), "nested too deep"),
    "not JSON": (file("{"), "is not JSON"),
    "not a number": (file('{"w": NaN}'), "holds NaN"),
    "twice": (file('{"w": 1, "w": 2}'), "stands in it twice"),
    "a list": (file([FULL]), "not what curvlab writes"),
    "a form that is code": (file({"w": {"form": "__import__('os')", "norm": False}}), "not what curvlab writes"),
    "further keys": (file({"w": {**FULL, "rank": 2**40}}), "not what curvlab writes"),
    "of nothing": (file({"w": FULL, "v": FULL}), "differ in 'v'"),
    "not described": (file({}), "differ in 'w'"),
    "name that clears the screen": (file({"w": FULL, "\x1b[2J": FULL}), "'\\x1b[2J'"),
    "long name": (file({"w": FULL, "x" * 10**6: FULL}), "xxx…xxx"),
    "larger than its parameter": (file({"w": FULL}, tensor(16, 32, (4, 1))), "does not fit the parameter"),
    "thin": (file({"w": FULL}, tensor(16, 24, (2, 1))), "not what it is said to be"),
    "rank beyond its size": (file({"w": LOW}, tensor(16, 32, (1, 4)), weight=(4, 1)), "not what it is said to be"),
    "whole numbers": (file({"w": FULL}, tensor(16, 32, dtype="I32")), "not what it is said to be"),
    "a vector's": (file({"w": FULL}, tensor(16, 32), weight=(4,)), "does not fit the parameter"),
    "no axes": (file({"w": FULL}, tensor(16, 20, ())), "does not fit the parameter"),
    "a tied weight": (file({"w": FULL}, also="curvlab.fop.w"), "is said to be a tied weight"),
    "a tied name": (file({"w": FULL}, **{"curvlab.fop.v": "w"}), "is said to be a tied weight"),
    "no weights": (
        container(
            {"__metadata__": {"curvlab.fop": json.dumps({"w": FULL})}, "curvlab.fop.w": tensor(0, 16)}, DATA[:16]
        ),
        "does not fit the parameter",
    ),
}


@pytest.mark.parametrize("name", ENEMY)
def test_matrices_of_an_enemy_are_refused(name: str, tmp_path: Path) -> None:
    content, words = ENEMY[name]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    sentence = refusal(path)
    assert words in sentence
    assert "model.safetensors" in sentence


def test_a_parameter_without_entries_has_no_matrix(tmp_path: Path) -> None:
    header = {"__metadata__": {"curvlab.fop": json.dumps({"w": FULL})}, "w": tensor(0, 0, (2, 3, 0))}
    path = tmp_path / "model.safetensors"
    path.write_bytes(container({**header, "curvlab.fop.w": tensor(0, 0, (0, 0)), "v": tensor(0, 16)}, DATA[:16]))
    assert "does not fit the parameter" in refusal(path)


def test_the_honest_one_loads(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(file({"w": FULL}))
    checkpoint = load(path)
    assert checkpoint.fop is not None
    assert list(checkpoint.tensors) == ["w"]
    assert checkpoint.fop.factors["w"].shape == (2, 2)


def test_a_limit_of_memory_counts_the_matrices(tmp_path: Path) -> None:
    from curvlab.errors import MemoryBudgetError

    header = {"__metadata__": {"curvlab.fop": json.dumps({"w": FULL})}, "w": tensor(0, 16, (1, 4))}
    path = tmp_path / "model.safetensors"
    path.write_bytes(container({**header, "curvlab.fop.w": tensor(16, 80, (4, 4))}, bytes(80)))
    with pytest.raises(MemoryBudgetError, match=r"'curvlab\.fop\.w'"):
        load(path, max_memory=40)
