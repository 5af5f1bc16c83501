"""What a refusal says: neither advice that endangers, nor words of Python, nor what is not so."""

from __future__ import annotations

import os
import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile.refusal import refusal
from hostile.torch_bytes import Calls, archive, pickled, weights, zipped

from curvlab.formats.load import load

# Words of Python and of other libraries' advice, which a sentence of curvlab never has.
FOREIGN = re.compile(
    r"has no attribute|object at 0x|pop from empty|out of range|not enough values|zip\(\)|codec can't"
    r"|int_max_str_digits|trusted source|weights_only|allow_pickle|inline_container|enforce fail|literal for int"
)


def _system(command: str) -> Calls:
    return Calls(os.system, command)


def _header(code: str, shape: str = "[2]", end: int = 1) -> bytes:
    text = f'{{"w": {{"dtype": "{code}", "shape": {shape}, "data_offsets": [0, {end}]}}}}'.encode()
    return struct.pack("<Q", len(text)) + text + bytes(end)


# Instructions of a pickle that do not fit what stands before them.
BROKEN: dict[str, bytes] = {
    "state for a name": b"\x80\x02cos\nsystem\n}b.",
    "pop of nothing": b"\x80\x020.",
    "a pair of nothing": b"\x80\x04\x85.",
    "a memo that is empty": b"\x80\x02h\x07.",
    "a pair for a number": b"\x80\x02K\x01K\x02K\x03s.",
    "an item for a number": b"\x80\x02K\x01K\x03a.",
    "half a pair": b"\x80\x02(K\x01d.",
    "no mark": b"\x80\x02t.",
    "a call of nothing": b"\x80\x02(o.",
    "a number of 5,000 digits": b"\x80\x02I" + b"1" * 5000 + b"\n.",
    "a number in words": b"\x80\x02Fabc\n.",
    "text that is none": b"\x80\x02X\x02\x00\x00\x00\xff\xfe.",
    "the end at once": b"\x80\x02.",
    "a name of nothing": b"\x80\x02cos\n\n0.",
}


@pytest.mark.parametrize("frame", ["bare", "zip"])
@pytest.mark.parametrize("name", BROKEN)
def test_broken_pickles_are_told_of_in_words_of_their_own(name: str, frame: str, tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    path.write_bytes(BROKEN[name] if frame == "bare" else archive(BROKEN[name]))
    sentence = refusal(path)
    assert not FOREIGN.search(sentence), sentence
    assert "byte " in sentence


# Content of a file -> words of the sentence.
FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "numbers of four bits": (lambda: _header("F4"), "holds numbers of 4 bits (F4) in 'w'"),
    "numbers of six bits": (lambda: _header("F6_E2M3", "[4]", 3), "holds numbers of 6 bits (F6_E2M3) in 'w'"),
    "a size of 5,000 digits": (lambda: _header("F32", f"[{'1' * 5000}]"), "a whole number of 5000 digits"),
    "bytes that no tensor has": (lambda: _header("F32") + bytes(8), "download it again, or ask its author"),
    "a byte order that is none": (
        lambda: zipped({"m/data.pkl": pickled(weights()), "m/byteorder": b"middle", "m/data/0": bytes(16)}),
        "'middle' is no order of bytes",
    ),
    "a version that is none": (
        lambda: zipped({"m/data.pkl": pickled(weights()), "m/data/0": bytes(16), "m/version": b"zz"}),
        "torch cannot read it",
    ),
    "two folders": (
        lambda: zipped({"a/data.pkl": pickled(weights()), "b/data/0": bytes(16)}),
        "its entries stand in several folders ('a', 'b'), and torch writes one",
    ),
    "a file beside the folder": (
        lambda: zipped({"a/data.pkl": pickled(weights()), "a/data/0": bytes(16), "readme": b""}),
        "its entries stand in several folders ('a', 'readme'), and torch writes one",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_files(name: str, tmp_path: Path) -> None:
    make, words = FILES[name]
    path = tmp_path / "m.bin"
    path.write_bytes(make())
    sentence = refusal(path)
    assert words in sentence
    assert not FOREIGN.search(sentence), sentence
    assert "write the file again" not in sentence


# Pickles whose values are numbers and text; what stands behind the first is said, whatever the first looks like.
PLAIN = pickle.dumps({"a": 1, "b": [1, 2]})
BARE: dict[str, tuple[Callable[[], bytes], str, bool]] = {
    "plain values": (lambda: PLAIN, "a bare pickle of plain values", False),
    "plain values as text": (lambda: pickle.dumps({"a": 1}, 0), "a bare pickle of plain values", False),
    "a second that is plain": (lambda: PLAIN + PLAIN, "2 bare pickles", False),
    "a second that runs code": (lambda: PLAIN + pickle.dumps(_system("true")), "system'", True),
    "a third that runs code": (lambda: PLAIN * 2 + pickle.dumps(_system("true"), 0), "system'", True),
    "twenty million": (lambda: b"\x80\x02N." + b"N." * 20_000_000, "1001 bare pickles", False),
    "code": (lambda: pickle.dumps(_system("true")), "system'", True),
    "bytes behind it": (lambda: PLAIN + b"xyz", "3 bytes behind it were not followed", False),
}


@pytest.mark.parametrize("name", BARE)
def test_bare_pickles_say_what_opening_them_would_do(name: str, tmp_path: Path) -> None:
    make, words, runs_code = BARE[name]
    path = tmp_path / "m.pkl"
    path.write_bytes(make())
    sentence = refusal(path)
    assert words in sentence
    assert ("would run code" in sentence) is runs_code, sentence


def test_code_behind_recovered_tensors_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.pkl"
    path.write_bytes(pickle.dumps({"fc.weight": torch.ones(2, 2)}) + pickle.dumps(_system("true")))
    assert any("system'" in note for note in load(path).notes)


def test_what_torch_itself_refuses_is_read_without_its_advice(tmp_path: Path) -> None:
    # POP is no instruction of torch's safe reader, whose own words are advice to read the file unsafely.
    path, content = tmp_path / "m.pt", pickled(weights())
    path.write_bytes(archive(content[:2] + b"N0" + content[2:]))
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    sentence = refusal(path)
    assert "torch cannot read it" in sentence
    assert not FOREIGN.search(sentence), sentence


def test_memory_that_runs_out_while_loading_is_not_told_as_too_many_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.pt"
    torch.save({"fc.weight": torch.ones(2, 2)}, path)

    def exhausted(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(torch, "load", exhausted)
    sentence = refusal(path)
    assert "there is not enough memory" in sentence
    assert "--samples" not in sentence
