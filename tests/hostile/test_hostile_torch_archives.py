"""Dishonest archives, old files and directories of PyTorch: refused in one sentence, in little time and memory."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hostile.refusal import refusal
from hostile.torch_bytes import (
    Storage,
    archive,
    pickled,
    tensor,
    weights,
    zipped,
)

from curvlab.formats.detect import detect
from curvlab.formats.load import load

GOOD = archive(weights())

_ENTRIES = {"m/data.pkl": pickled(weights()), "m/byteorder": b"little", "m/data/0": bytes(16), "m/version": b"3\n"}


def _patched(content: bytes, old: bytes, new: bytes) -> bytes:
    assert old in content
    return content.replace(old, new)


def _with_entry(name: str) -> bytes:
    return zipped({**_ENTRIES, name: b"x"})


def _twice() -> bytes:
    buffer = io.BytesIO(_with_entry("m/data/1"))
    return _patched(buffer.getvalue(), b"m/data/1", b"m/data/0")


def _with_name(name: bytes) -> bytes:
    """An entry under a name that Python's writer would not let through."""
    return _patched(_with_entry("m/" + "x" * (len(name) - 2)), b"m/" + b"x" * (len(name) - 2), name)


def _two_places() -> bytes:
    buffer = io.BytesIO(GOOD)
    with zipfile.ZipFile(buffer, "a") as file:
        info = zipfile.ZipInfo("m/x")
        info.extra = 2 * struct.pack("<HH", 1, 0)
        file.writestr(info, b"x")
    return buffer.getvalue()


def _two_tables(large: bool) -> bytes:
    """The first table, where the end record says, names other entries than the second, before the end record."""
    content = zipped({"m/DATA_pkl": b"N.", **_ENTRIES})
    begin, end = content.index(b"PK\x01\x02"), content.index(b"PK\x05\x06")
    table = content[begin:end]
    other = table.replace(b"m/data.pkl", b"m/zzzzzzzz").replace(b"m/DATA_pkl", b"m/data.pkl")
    records = b""
    if large:
        records = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 5, 5, len(table), begin)
        records += struct.pack("<4sIQI", b"PK\6\7", 0, begin + 2 * len(table), 1)
    return content[:begin] + other + table + records + content[end:]


def _two_end_records() -> bytes:
    """The locator of a large archive leads to another record than the one before it."""
    content = _two_tables(large=True)
    at = content.index(b"PK\6\6")
    return content[:at] + content[at : at + 56] + content[at:]


ARCHIVES: dict[str, tuple[Callable[[], bytes], str]] = {
    "half": (lambda: GOOD[: len(GOOD) // 2], f"its end is missing: it was cut off ({len(GOOD) // 2} bytes)"),
    "without its last byte": (lambda: GOOD[:-1], f"its end is missing: it was cut off ({len(GOOD) - 1} bytes)"),
    "with a pickle in capitals, last": (
        lambda: _with_entry("m/DATA.PKL"),
        "'m/data.pkl' and 'm/DATA.PKL' are one name",
    ),
    "with a pickle in capitals, first": (
        lambda: zipped({"m/Data.pkl": pickled({}), **_ENTRIES}),
        "'m/Data.pkl' and 'm/data.pkl' are one name",
    ),
    "with a pickle in capitals alone": (
        lambda: zipped({k.replace("data.pkl", "DATA.PKL"): v for k, v in _ENTRIES.items()}),
        "a zip archive without a model",
    ),
    "with a folder in capitals": (lambda: zipped({"M/data.pkl": pickled({}), **_ENTRIES}), "are one name"),
    "with bytes in capitals": (lambda: _with_entry("m/DATA/0"), "are one name"),
    "with a name cut by a zero": (lambda: _with_name(b"m/data.pk\0l"), "that readers understand differently"),
    "with backslashes": (lambda: _with_name(b"m\\data.pkl"), "points out of the archive"),
    "with a dot in a name": (lambda: _with_entry("./m/data.pkl"), "that readers understand differently"),
    "with two strokes in a name": (lambda: _with_entry("m//data.pkl"), "that readers understand differently"),
    "with two tables of contents": (lambda: _two_tables(large=False), "not where its end record says"),
    "large, with two tables of contents": (lambda: _two_tables(large=True), "not where its end record says"),
    "large, with two end records": (_two_end_records, "two end records do not fit together"),
    "with two places of an entry": (_two_places, "gives its size and place twice"),
    "behind other bytes": (lambda: b"PK\x03\x04" + GOOD, "not where its end record says"),
    "empty": (lambda: zipped({}), "it is empty"),
    "without data.pkl": (lambda: zipped({"m/weights": b"x"}), "without a model"),
    "with data.pkl alone": (lambda: zipped({"data.pkl": pickled({})}), "0 entries named data.pkl"),
    "without its storage": (lambda: zipped({k: v for k, v in _ENTRIES.items() if k != "m/data/0"}), "has no bytes"),
    "with half a storage": (lambda: archive(weights(), bytes(8)), "has 8 bytes instead of 16"),
    "with half a pickle": (lambda: archive(pickled(weights())[:-10]), "pickle cannot be followed"),
    "with no pickle": (lambda: archive(b""), "pickle cannot be followed"),
    "with zeros for a pickle": (lambda: archive(bytes(100)), "pickle cannot be followed"),
    "with an entry out of the archive": (lambda: _with_entry("../../x"), "points out of the archive"),
    "with an absolute entry": (lambda: _with_entry("/etc/x"), "points out of the archive"),
    "with an entry twice": (_twice, "stands in it twice"),
    "bomb of data": (
        lambda: archive(
            {"w": tensor((50_000_000,), storage=Storage(50_000_000))}, bytes(200_000_000), zipfile.ZIP_DEFLATED
        ),
        "as a zip bomb does",
    ),
    "bomb of a pickle": (
        lambda: archive(b"\x80\x02" + b"N0" * 100_000_000 + b"N.", compress=zipfile.ZIP_DEFLATED),
        "as a zip bomb does",
    ),
    "bomb beside the data": (
        lambda: zipped({**_ENTRIES, "m/readme": bytes(200_000_000)}, zipfile.ZIP_DEFLATED),
        "as a zip bomb does",
    ),
    "encrypted": (lambda: _encrypted(), "is encrypted"),
    "overlapping": (lambda: _overlapping(), "overlap|another size|is broken"),
    "of the wrong byte order": (
        lambda: zipped({**_ENTRIES, "m/byteorder": b"middle"}),
        "'middle' is no order of bytes",
    ),
}


def _encrypted() -> bytes:
    content = bytearray(GOOD)
    at = content.index(b"PK\x01\x02")
    content[at + 8] |= 1
    return bytes(content)


def _overlapping() -> bytes:
    """Every entry of the table of contents claims the size of the whole file."""
    content = bytearray(GOOD)
    at = content.find(b"PK\x01\x02")
    while at >= 0:
        struct.pack_into("<II", content, at + 20, len(content), len(content))
        at = content.find(b"PK\x01\x02", at + 1)
    return bytes(content)


@pytest.mark.parametrize("name", ARCHIVES)
def test_dishonest_archives(name: str, tmp_path: Path) -> None:
    make, words = ARCHIVES[name]
    path = tmp_path / "m.pt"
    path.write_bytes(make())
    sentence = refusal(path)
    assert any(word in sentence for word in words.split("|")), sentence


def test_weights_of_a_directory_stand_in_one_folder(tmp_path: Path) -> None:
    # torch goes by the folder of the first entry; nothing has told the format of this file before it is read.
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "pytorch_model.bin").write_bytes(zipped({"a/DATA.PKL": pickled({}), **_ENTRIES}))
    assert "entries outside of its folder 'm/'" in refusal(tmp_path)


def test_a_name_in_a_field_that_torch_does_not_read(tmp_path: Path) -> None:
    """Newer Pythons take an entry's name from this field; where it is not looked at, two entries are one."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in _ENTRIES.items():
            info = zipfile.ZipInfo("m/evil.pkl" if name == "m/data.pkl" else name)
            if name == "m/data.pkl":
                field = struct.pack("<BI", 1, zlib.crc32(b"m/evil.pkl")) + name.encode()
                info.extra = struct.pack("<HH", 0x7075, len(field)) + field
            file.writestr(info, content)
    path = tmp_path / "m.pt"
    path.write_bytes(buffer.getvalue())
    words = ("that readers understand differently", "a zip archive without a model")
    sentence = refusal(path)
    assert any(word in sentence for word in words), sentence


def test_a_bomb_that_stays_below_the_ratio_is_bound_by_the_memory_allowed(tmp_path: Path) -> None:
    data = os.urandom(300_000) + bytes(5_000_000)
    path = tmp_path / "m.pt"
    elements = len(data) // 4
    path.write_bytes(archive({"w": tensor((elements,), storage=Storage(elements))}, data, zipfile.ZIP_DEFLATED))
    assert load(path).layers
    assert "that --max-memory allows" in refusal(path, max_memory=1_000_000)


# Directories without a table of their own: what they hold, and words of the sentence.
DIRECTORIES: dict[str, tuple[tuple[str, ...], str]] = {
    "two models": (("a.h5", "b.PT"), "it holds 2 model files ('a.h5', 'b.PT')"),
    "seven models": (
        tuple(f"{i}.ckpt" for i in range(7)),
        "'0.ckpt', '1.ckpt', '2.ckpt', '3.ckpt', '4.ckpt' and 2 more",
    ),
    "none": (("README.md",), "it holds no model file"),
    "a SavedModel": (
        ("saved_model.pb", "net.h5"),
        "is a TensorFlow SavedModel: curvlab cannot read it; save the model",
    ),
}


@pytest.mark.parametrize("name", DIRECTORIES)
def test_what_a_directory_holds(name: str, tmp_path: Path) -> None:
    files, words = DIRECTORIES[name]
    for file in files:
        (tmp_path / file).write_bytes(b"x")
    assert words in refusal(tmp_path)


def test_the_one_model_of_a_directory_is_a_file_inside(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    os.mkfifo(folder / "pipe.pt")
    (folder / "net.keras").mkdir()
    assert "it holds no model file" in refusal(folder)
    (folder / "net.pth").symlink_to(tmp_path / "outside.pth")
    (tmp_path / "outside.pth").write_bytes(GOOD)
    assert "a link out of the model's folder" in refusal(folder)
    found = detect(tmp_path)
    assert (found.path, found.format.name) == (tmp_path / "outside.pth", "torch-zip")
    assert "opened 'outside.pth', the only model file of the folder" in found.notes
    assert detect(tmp_path / "outside.pth").notes == ()
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert detect(tmp_path).format.name == "huggingface"


def test_junk_is_refused_without_torch(tmp_path: Path) -> None:
    (tmp_path / "junk").write_bytes(b"\x01junk")
    (tmp_path / "empty").write_bytes(b"")
    code = (
        "import sys\nfrom curvlab.formats.load import load\nfor path in sys.argv[1:]:\n"
        "    try:\n        load(path)\n    except Exception as error:\n        print(error)\n"
        "sys.exit('torch' in sys.modules)"
    )
    paths = [str(tmp_path / name) for name in ("junk", "empty", ".")]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    assert len(done.stdout.splitlines()) == 3
