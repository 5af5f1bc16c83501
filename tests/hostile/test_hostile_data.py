"""Data files that somebody made to do harm: each is refused in one sentence, and no memory is taken for it."""

from __future__ import annotations

import gzip
import io
import os
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from curvlab.data import load
from curvlab.errors import CurvlabError, DataError

MOST_SECONDS, MOST_BYTES = 5, 40 * 2**20


def refusal(path: Path | str, **options: int) -> str:
    """The sentence with which `load` refuses the path, soon and in little memory."""
    torch.empty(0)
    tracemalloc.start()
    start = time.process_time()
    try:
        with pytest.raises(DataError) as caught:
            load(path, **options)
        assert time.process_time() - start < MOST_SECONDS
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()
    sentence = str(caught.value)
    assert "\n" not in sentence
    for internal in ("allow_pickle", "max_header_size", "set_int_max_str_digits", "weights_only", "ast."):
        assert internal not in sentence
    return sentence


def npy(header: bytes, body: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    width = "<H" if version == b"\x01\x00" else "<I"
    return b"\x93NUMPY" + version + struct.pack(width, len(header)) + header + body


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return content.getvalue()


def array_bomb(megabytes: int) -> bytes:
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (%d, 1024), }" % (megabytes * 1024)
    return zipped(("x.npy", npy(header, bytes(megabytes * 2**20))))


PLAIN = b"{'descr': '<f8', 'fortran_order': False, 'shape': (2, 1), }"
HEADERS = {
    "long header": (npy(b" " * 20_000 + PLAIN), "header of 20,059 bytes"),
    "huge header": (npy(b"{", version=b"\x02\x00")[:8] + b"\xff\xff\xff\xff", "header of 4,294,967,295 bytes"),
    "digits": (npy(PLAIN.replace(b"2, 1", b"9" * 5000 + b", 1")), "numpy would not write"),
    "depth": (npy(b"(" * 9000), "numpy would not write"),
    "expression": (npy(PLAIN.replace(b"2, 1", b"2**99, 1")), "numpy would not write"),
    "negative": (npy(PLAIN.replace(b"2, 1", b"-2, 1")), "numpy would not write"),
    "many axes": (npy(PLAIN.replace(b"2, 1", b"1, " * 900)), "numpy would not write"),
    "overflow": (npy(PLAIN.replace(b"2, 1", b"%d, 0" % 2**70)), "numpy would not write"),
    "version": (npy(PLAIN, bytes(16), version=b"\x09\x00"), "later version"),
    "cut": (npy(PLAIN)[:30], "cut off within the header"),
    "code": (npy(PLAIN.replace(b"<f8", b"<f8'+open('x','w').name+'")), "numpy would not write"),
    "objects": (npy(PLAIN.replace(b"<f8", b"|O"), b"cos\nsystem\n(S'true'\ntR."), "pickled Python objects"),
}


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("within", ["npy", "npz"])
def test_headers_of_arrays(tmp_path: Path, name: str, within: str) -> None:
    content, words = HEADERS[name]
    path = tmp_path / f"d.{within}"
    path.write_bytes(content if within == "npy" else zipped(("x.npy", content)))
    assert words in refusal(path)


def test_a_compressed_array_is_refused_by_its_size(tmp_path: Path) -> None:
    (tmp_path / "d.npz").write_bytes(array_bomb(200))
    for options in ({}, {"samples": 4}, {"max_memory": 2**40}):
        sentence = refusal(tmp_path / "d.npz", **options)
        assert "to 209,715,2" in sentence
        assert "more than 100 bytes from one are refused" in sentence
        assert "numpy.savez" in sentence


def test_what_compresses_well_and_is_small_is_read(tmp_path: Path) -> None:
    (tmp_path / "d.npz").write_bytes(array_bomb(32))
    assert load(tmp_path / "d.npz", samples=2).x.shape == (2, 1024)


def test_a_bomb_that_nobody_asks_for_is_not_unpacked(tmp_path: Path) -> None:
    bomb = zipfile.ZipFile(io.BytesIO(array_bomb(200))).read("x.npy")
    (tmp_path / "d.npz").write_bytes(zipped(("x.npy", npy(PLAIN, bytes(16))), ("other.npy", bomb)))
    assert load(tmp_path / "d.npz").x.shape == (2, 1)


def test_a_gzipped_bomb(tmp_path: Path) -> None:
    head = struct.pack(">HBBII", 0, 8, 2, 400 * 1024, 1024)
    path = tmp_path / "images-idx2-ubyte.gz"
    path.write_bytes(gzip.compress(head + bytes(2**20)))
    for options in ({}, {"samples": 4}):
        assert "to 419,430,400 bytes" in refusal(path, **options)


def test_a_wrong_checksum_is_found_though_few_rows_are_wanted(tmp_path: Path) -> None:
    content = bytearray(zipped(("x.npy", npy(PLAIN, b"abcdefgh" * 2)), method=zipfile.ZIP_STORED))
    content[content.index(b"abcdefgh" * 2) + 8] ^= 1
    (tmp_path / "d.npz").write_bytes(content)
    assert "Bad CRC-32" in refusal(tmp_path / "d.npz", samples=1)


def test_a_table_of_contents_of_many_entries(tmp_path: Path) -> None:
    """It is bounded by its bytes, before Python makes an object of every entry."""
    count, name = 500_000, b"x.npy"
    local = struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, 0, 0, 0, 0, 0, 0, 0, len(name), 0) + name
    entry = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, 0, 0, 0, len(name), *[0] * 4, 0, 0) + name
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, count * len(entry), len(local), 0)
    (tmp_path / "d.npz").write_bytes(local + entry * count + end)
    assert "its table of contents has 25,500,000 bytes, beyond the 4,194,304 that are read" in refusal(
        tmp_path / "d.npz"
    )


class Sized:
    """A pickle that asks torch for a tensor of so many numbers."""

    def __init__(self, call: Callable[..., object], *arguments: object) -> None:
        self.call = call, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_pickles_that_ask_for_memory(tmp_path: Path, new: bool) -> None:
    path = tmp_path / "d.pt"
    for value in (Sized(torch.Tensor, 10**12), Sized(bytearray, 10**11), torch.zeros(1).expand(10**6, 10**6)):
        torch.save({"x": value}, path, _use_new_zipfile_serialization=new)
        assert "d.pt' cannot be read as tensors" in refusal(path)


def test_a_compressed_torch_archive(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(2**24)}, tmp_path / "d.pt")
    with zipfile.ZipFile(tmp_path / "d.pt") as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    (tmp_path / "d.pt").write_bytes(zipped(*members))
    assert "zip bomb" in refusal(tmp_path / "d.pt") or "compressed" in refusal(tmp_path / "d.pt")


DIGITS = {
    "depth": (b"[" * 200_000, "does not hold digits"),
    "digits": (b'{"data": [' + b"9" * 5000 + b"]}", "does not hold digits"),
    "overflow": (b'{"data": [1' + b"0" * 400 + b"]}", "does not hold digits"),
    "words": (b'{"data": ["a"]}', "does not hold digits"),
}


@pytest.mark.parametrize("name", DIGITS)
def test_digits_in_json(tmp_path: Path, name: str) -> None:
    content, words = DIGITS[name]
    for digit in range(10):
        (tmp_path / f"{digit}.json").write_bytes(content)
    assert words in refusal(tmp_path)
    os.truncate(tmp_path / "0.json", 40 * 2**20)
    assert "41,943,040 bytes, and at most 33,554,432 are read" in refusal(tmp_path)


def test_special_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    for path in (tmp_path / "pipe.npz", Path("/dev/zero")):
        with pytest.raises(CurvlabError, match="is neither a file nor a folder"):
            load(path)
    os.mkfifo(tmp_path / "a.png")
    assert "no data in it" in refusal(tmp_path)
