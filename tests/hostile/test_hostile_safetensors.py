"""Safetensors files from an enemy: each refused in one sentence that says what is wrong; the honest ones load."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile.refusal import refusal

from curvlab.formats.load import load
from curvlab.formats.safetensors.header import MAX_HEADER_BYTES, MAX_TENSORS


def container(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A file with this header (JSON unless it is bytes already), said to have `length` bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(begin: int, end: int, shape: Any = (2, 2), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


DATA = bytes(16)
GOOD = {"a.weight": tensor(0, 16)}
GOOD_TEXT = json.dumps(GOOD)

HONEST = {
    "plain": container(GOOD, DATA),
    "padded header": container(GOOD_TEXT.encode() + b"   ", DATA),
    "tensors in another order": container({"b.weight": tensor(16, 32), "a.weight": tensor(0, 16)}, DATA * 2),
    "empty tensor between": container({"a.weight": tensor(0, 16), "b": tensor(16, 16, (0, 4))}, DATA),
    "metadata": container({"__metadata__": {"format": "pt"}, **GOOD}, DATA),
    "further facts about a tensor": container({"a.weight": {**tensor(0, 16), "note": 1}}, DATA),
    "names that are no paths and no colours": container(
        {"../../etc/passwd.weight": tensor(0, 16), "\x1b[31mred\n.weight": tensor(16, 32)}, DATA * 2
    ),
}

ENEMY: dict[str, tuple[bytes, str]] = {
    "header of 2^62": (container(GOOD, DATA, 2**62), "claims 4611686018427387904 bytes"),
    "header of 2^64 - 1": (container(GOOD, DATA, 2**64 - 1), "claims 18446744073709551615 bytes"),
    "header past the end": (container(GOOD, DATA, 1000), "claims 1000 bytes"),
    "header cut short": (container(GOOD, DATA, 20), "is not JSON"),
    "header of nothing": (container(b"", DATA), "is not JSON"),
    "not JSON": (container(b"{this is no JSON}" + bytes(20)), "is not JSON"),
    "not UTF-8": (container(b'{"\xff\xfe": 1}'), "is not UTF-8"),
    "a list": (container([GOOD]), "a JSON list, not an object"),
    "a number": (container(7), "a JSON int, not an object"),
    "200,000 deep": (container(b'{"a":' + b"[" * 200_000), "nested too deep"),
    "not a number": (container(b'{"a": NaN}'), "holds NaN"),
    "a number of a million digits": (container(b'{"a": ' + b"9" * 10**6 + b"}"), "cannot be read"),
    "no tensors": (container({}), "holds no tensors"),
    "only metadata": (container({"__metadata__": {"a": "b"}}), "holds no tensors"),
    "metadata that is no table": (container({"__metadata__": [1], **GOOD}, DATA), "not a table of strings"),
    "metadata that is no text": (container({"__metadata__": {"a": 1}, **GOOD}, DATA), "not a table of strings"),
    "key twice": (
        container(b'{"a":%s,"a":%s}' % ((json.dumps(tensor(0, 16)).encode(),) * 2), DATA),
        "the key 'a' stands in it twice",
    ),
    "key twice inside": (
        container(b'{"a":{"dtype":"F32","shape":[4],"shape":[2,2],"data_offsets":[0,16]}}', DATA),
        "the key 'shape' stands in it twice",
    ),
    "overlap": (container({"a": tensor(0, 16), "b": tensor(8, 24)}, bytes(24)), "overlaps the one before"),
    "the same bytes twice": (container({"a": tensor(0, 16), "b": tensor(0, 16)}, DATA), "overlaps the one before"),
    "hole": (container({"a": tensor(0, 16), "b": tensor(20, 36)}, bytes(36)), "leaves a hole before"),
    "hole at the beginning": (container({"a": tensor(4, 20)}, bytes(20)), "leaves a hole before"),
    "trailing bytes": (container(GOOD, DATA + b"more"), "4 bytes follow the last tensor"),
    "truncated": (container(GOOD, DATA[:-3]), "ends 3 bytes before the last tensor"),
    "no data": (container(GOOD), "ends 16 bytes before the last tensor"),
    "shape and bytes differ": (container({"a": tensor(0, 16, (2, 3))}, DATA), "needs 24 bytes, not 16"),
    "overflowing shape": (container({"a": tensor(0, 16, (2**62, 2**62))}, DATA), "needs "),
    "shape that overflows to the right size": (container({"a": tensor(0, 16, (2**62, 4, 4))}, DATA), "needs "),
    "a dimension of 2^64": (container({"a": tensor(0, 16, (2**64,))}, DATA), "not a list of at most 64 sizes"),
    "negative dimension": (container({"a": tensor(0, 16, (-2, -2))}, DATA), "not a list of at most 64 sizes"),
    "a hundred dimensions": (container({"a": tensor(0, 4, (1,) * 100)}, bytes(4)), "not a list of at most 64 sizes"),
    "dimension that is true": (container({"a": tensor(0, 16, (True, 4))}, DATA), "not a list of at most 64 sizes"),
    "dimension that is a float": (container({"a": tensor(0, 16, (4.0,))}, DATA), "not a list of at most 64 sizes"),
    "shape that is a number": (container({"a": tensor(0, 16, 4)}, DATA), "not a list of at most 64 sizes"),
    "no elements and 2^40": (container({"a": tensor(0, 0, (0, 2**40)), "b": tensor(0, 16)}, DATA), "no elements but"),
    "unknown type": (container({"a": tensor(0, 16, dtype="F33")}, DATA), "the element type 'F33'"),
    "type that is a list": (container({"a": tensor(0, 16, dtype=["F32"])}, DATA), "the element type"),
    "type that clears the screen": (container({"a": tensor(0, 16, dtype="\x1b[2J")}, DATA), "'\\x1b[2J'"),
    "offsets backwards": (container({"a": tensor(16, 0)}, DATA), "not a beginning and an end"),
    "negative offsets": (container({"a": tensor(-16, 0)}, DATA), "not a beginning and an end"),
    "one offset": (container({"a": {**tensor(0, 16), "data_offsets": [16]}}, DATA), "not a beginning and an end"),
    "tensor that is a list": (container({"a": [1]}, DATA), "is not described by dtype, shape and data_offsets"),
    "tensor without shape": (container({"a": {"dtype": "F32", "data_offsets": [0, 16]}}, DATA), "is not described"),
    "name of half a character": (container(b'{"\\ud800": {}}', DATA), "not valid Unicode"),
    "name that clears the screen": (container({"\x1b[2J\n": tensor(0, 15)}, DATA), "'\\x1b[2J\\n'"),
    "long name": (container({"x" * 10**6: tensor(0, 16)}, DATA), "xxx…xxx"),
    "only integers": (container({"position_ids": tensor(0, 16, (2,), "I64")}, DATA), "holds no weights"),
}


@pytest.mark.parametrize("name", HONEST)
def test_honest_files_load(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(HONEST[name])
    checkpoint = load(path)
    assert all(torch.equal(tensor, torch.zeros_like(tensor)) for tensor in checkpoint.tensors.values())


@pytest.mark.parametrize("name", ENEMY)
@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_enemy_files_are_refused(name: str, suffix: str, tmp_path: Path) -> None:
    content, words = ENEMY[name]
    path = tmp_path / f"model.{suffix}"
    path.write_bytes(content)
    sentence = refusal(path)
    if suffix == "safetensors":
        assert words in sentence
        assert "model.safetensors" in sentence


def test_a_header_of_a_hundred_megabytes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 100_000_000) + b"{")
        file.truncate(110_000_000)
    assert f"100000000 bytes is beyond the limit of {MAX_HEADER_BYTES}" in refusal(path)


def test_more_tensors_than_any_model_has(tmp_path: Path) -> None:
    text = ",".join(f'"{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}' for i in range(MAX_TENSORS + 1))
    path = tmp_path / "model.safetensors"
    path.write_bytes(container(b"{" + text.encode() + b"}"))
    assert "beyond the limit" in refusal(path)
