"""PyTorch checkpoints from an enemy: nothing executed, nothing allocated on the word of the file."""

from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile.refusal import refusal

from curvlab.formats.detect import detect
from curvlab.formats.load import load
from curvlab.formats.torch.pickle_trace import LEGACY_MAGIC


class Calls:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


class Storage:
    """Pickles as a reference to the bytes of the file, of any size one likes to claim."""

    def __init__(self, elements: Any, key: Any = "0", kind: Any = torch.FloatStorage, *view: Any) -> None:
        self.identifier = ("storage", kind, key, "cpu", elements, *view)


class _Pickler(pickle.Pickler):
    parts = 5  # of a reference to a storage; the old format has a sixth, for views

    def persistent_id(self, value: Any) -> Any:
        return (
            (*value.identifier, None)[: max(self.parts, len(value.identifier))] if isinstance(value, Storage) else None
        )


class _OldPickler(_Pickler):
    parts = 6


def pickled(value: Any, pickler: type[_Pickler] = _Pickler) -> bytes:
    buffer = io.BytesIO()
    pickler(buffer, 2).dump(value)
    return buffer.getvalue()


def tensor(size: Any, stride: Any = None, storage: Any = None, offset: Any = 0) -> Calls:
    stride = tuple(1 for _ in size) if stride is None else stride
    storage = Storage(4) if storage is None else storage
    rebuild = torch._utils._rebuild_tensor_v2
    return Calls(rebuild, storage, offset, size, stride, False, OrderedDict())


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


def archive(value: Any, data: bytes = bytes(16), compress: int = zipfile.ZIP_STORED) -> bytes:
    """A zip as torch writes it, around any pickle."""
    content = value if isinstance(value, bytes) else pickled(value)
    entries = {"m/data.pkl": content, "m/byteorder": b"little", "m/data/0": data, "m/version": b"3\n"}
    return zipped(entries, compress)


def zipped(entries: dict[str, bytes], compress: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compress) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return buffer.getvalue()


def legacy(value: Any, keys: Any = ("0",), count: int = 4, data: bytes = bytes(16)) -> bytes:
    """The old format around any pickle: five pickles, then the storages."""
    content = value if isinstance(value, bytes) else pickled(value, _OldPickler)
    facts = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    parts = [pickled(0x1950A86A20F9469CFC6C), pickled(1001), pickled(facts), content, pickled(list(keys))]
    return b"".join(parts) + struct.pack("<q", count) + data


def weights(**changes: Any) -> dict[str, Any]:
    return {"fc.weight": tensor((2, 2), (2, 1)), **changes}


FRAMES: dict[str, Callable[[Any], bytes]] = {"zip": archive, "legacy": legacy}


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
LEGACY_MAGIC_PICKLE = b"\x80\x02" + LEGACY_MAGIC


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
