"""GGUF files from an enemy: every count, length, type and place is held against the bytes that are there."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import torch
from gguf_files import KINDS, write_gguf
from hostile.refusal import refusal

from curvlab.formats.load import load


def text(content: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(content) if length is None else length) + content


def setting(key: bytes, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def tensor(name: bytes = b"a.weight", shape: tuple[int, ...] = (32, 2), kind: int = 0, offset: int = 0) -> bytes:
    described = struct.pack("<I", len(shape)) + b"".join(struct.pack("<Q", side) for side in shape)
    return text(name) + described + struct.pack("<IQ", kind, offset)


def container(
    *tensors: bytes,
    settings: tuple[bytes, ...] = (),
    data: bytes = bytes(256),
    counts: tuple[int, int] | None = None,
    version: bytes = b"\3\0\0\0",
) -> bytes:
    """A file; `counts` are those that it claims."""
    claimed = (len(tensors), len(settings)) if counts is None else counts
    head = b"GGUF" + version + struct.pack("<QQ", *claimed) + b"".join(settings) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + data


def array(kind: int, count: int, content: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, count) + content


HONEST = {
    "plain": container(tensor()),
    "version 2": container(tensor(), version=b"\2\0\0\0"),
    "settings of every type": container(
        tensor(),
        settings=(
            *(setting(b"k%d" % kind, kind, bytes(size)) for kind, size in ((0, 1), (2, 2), (6, 4), (7, 1), (12, 8))),
            setting(b"words", 9, array(8, 2, text(b"a") + text(b"\xff" * 1000))),
            setting(b"nested", 9, array(9, 1, array(4, 1, bytes(4)))),
            setting(b"colours", 8, text(b"\x1b[2J")),
        ),
    ),
    "names that are no paths and no colours": container(
        tensor(b"../../etc/passwd.weight"), tensor(b"\x1b[31mred\n.weight", offset=256), data=bytes(512)
    ),
    "bytes behind the last tensor": container(tensor(), data=bytes(1000)),
}

ENEMY: dict[str, tuple[bytes, str]] = {
    "nothing behind the magic": (b"GGUF", "4 bytes at place 4, and 0 are left"),
    "big-endian": (container(tensor(), version=b"\0\0\0\3"), "big-endian"),
    "version 1": (container(tensor(), version=b"\1\0\0\0"), "is of version 1"),
    "2^64 - 1 tensors": (container(tensor(), counts=(2**64 - 1, 0)), "claims 18446744073709551615 tensors"),
    "2^63 settings": (container(tensor(), counts=(1, 2**63)), "9223372036854775808 settings"),
    "a tensor more": (container(tensor(), counts=(2, 0)), "is not a valid GGUF file"),
    "no tensors": (container(), "holds no tensors"),
    "key of 2^62 bytes": (container(tensor(), settings=(text(b"k", 2**62),)), "a key claims 4611686018427387904 bytes"),
    "key past the end": (container(tensor(), settings=(text(b"k", 60_000),)), "it claims 60000 bytes"),
    "key that is no text": (container(tensor(), settings=(setting(b"\xff\xfe", 0, b"\0"),)), "is not UTF-8"),
    "key twice": (container(tensor(), settings=(setting(b"k", 0, b"\0"),) * 2), "'k' stands in it twice"),
    "string of 2^63": (container(tensor(), settings=(setting(b"k", 8, text(b"", 2**63)),)), "it claims 9223372"),
    "unknown type": (container(tensor(), settings=(setting(b"k", 13, b""),)), "has the type 13"),
    "array of 2^61 numbers": (container(tensor(), settings=(setting(b"k", 9, array(12, 2**61)),)), "it claims 18446"),
    "array of 2^62 strings": (container(tensor(), settings=(setting(b"k", 9, array(8, 2**62)),)), "an array claims"),
    "array of 4 million strings": (
        container(tensor(), settings=(setting(b"k", 9, array(8, 2**22)),)),
        "is not a valid GGUF file",
    ),
    "arrays in arrays": (
        container(tensor(), settings=(setting(b"k", 9, array(9, 1) * 5000),)),
        "arrays stand in arrays",
    ),
    "alignment 0": (container(tensor(), settings=(setting(b"general.alignment", 4, bytes(4)),)), "its alignment is"),
    "alignment 3": (
        container(tensor(), settings=(setting(b"general.alignment", 4, b"\3\0\0\0"),)),
        "its alignment is",
    ),
    "alignment 2^31": (
        container(tensor(), settings=(setting(b"general.alignment", 4, b"\0\0\0\x80"),)),
        "its alignment is",
    ),
    "alignment that is a word": (
        container(tensor(), settings=(setting(b"general.alignment", 8, text(b"\x1b[2J")),)),
        "its alignment is '\\x1b[2J'",
    ),
    "name of 2^40 bytes": (container(text(b"a", 2**40)), "the name of a tensor claims"),
    "the same name": (container(tensor(), tensor(offset=256), data=bytes(512)), "stands in it twice"),
    "no dimensions": (container(tensor(shape=())), "claims 0 dimensions"),
    "2^32 - 1 dimensions": (container(text(b"a") + b"\xff" * 4), "claims 4294967295 dimensions"),
    "dimension 0": (container(tensor(shape=(32, 0))), "claims the shape"),
    "dimensions that overflow": (container(tensor(shape=(2**63, 2**63, 4))), "claims the shape"),
    "dimensions that overflow to the right size": (container(tensor(shape=(2**62, 4, 64))), "claims the shape"),
    "unknown kind": (container(tensor(kind=2**31)), "has the type 2147483648"),
    "half a block": (container(tensor(shape=(31, 2), kind=2)), "in blocks of 32"),
    "past the end": (container(tensor(shape=(32, 3))), "it ends 128 bytes before"),
    "far away": (container(tensor(offset=2**63)), "bytes before the tensor"),
    "at an odd place": (container(tensor(offset=8), data=bytes(512)), "does not begin at a multiple of 32"),
    "over one another": (container(tensor(), tensor(b"b.weight", offset=32), data=bytes(512)), "lies over"),
    "cut off": (container(tensor())[:-1], "it ends 1 bytes before"),
    "only integers": (container(tensor(b"position_ids", kind=26)), "holds no weights"),
}


@pytest.mark.parametrize("name", HONEST)
def test_honest_files_load(name: str, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(HONEST[name])
    checkpoint = load(tmp_path / "m.gguf")
    assert all(torch.equal(found, torch.zeros(2, 32)) for found in checkpoint.tensors.values())
    assert all(note.isprintable() for note in checkpoint.notes)


@pytest.mark.parametrize("name", ENEMY)
def test_hostile_files_are_refused(name: str, tmp_path: Path) -> None:
    content, words = ENEMY[name]
    (tmp_path / "m.gguf").write_bytes(content)
    assert words in refusal(tmp_path / "m.gguf")


def test_four_million_strings_that_are_there_take_no_time(tmp_path: Path) -> None:
    words = setting(b"k", 9, array(8, 2**20, bytes(8 * 2**20)))
    (tmp_path / "m.gguf").write_bytes(container(tensor(), settings=(words,) * 5, counts=(1, 5)))
    assert "stands in it twice" in refusal(tmp_path / "m.gguf")


def test_a_header_without_end(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    long = setting(b"k", 9, array(0, 2**29))
    path.write_bytes(b"GGUF\3\0\0\0" + struct.pack("<QQ", 1, 1) + long)
    with path.open("r+b") as file:
        file.truncate(2**31)
    assert "its header is longer" in refusal(path)


def test_a_file_that_changes_after_it_was_looked_at(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", {"a.weight": KINDS.Q4_0})
    checkpoint = load(path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(Exception, match="changed while it was being read"):
        checkpoint.tensors["a.weight"]
