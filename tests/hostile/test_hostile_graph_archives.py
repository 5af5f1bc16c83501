"""TorchScript and torch.export archives from an enemy: one sentence, nothing executed or allocated on their word."""

from __future__ import annotations

import io
import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile.refusal import refusal
from hostile.torch_bytes import Calls, Storage, pickled, tensor, zipped
from torch import nn

from curvlab.formats.load import load


def entries_of(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@cache
def program() -> dict[str, bytes]:
    """An honest .pt2, by entry."""
    buffer = io.BytesIO()
    exported = torch.export.export(
        nn.Linear(2, 3), (torch.ones(2, 2),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
    )
    torch.export.save(exported, buffer)
    return entries_of(buffer.getvalue())


@cache
def script() -> dict[str, bytes]:
    """An honest TorchScript archive, by entry."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Linear(2, 3)), buffer)
    return entries_of(buffer.getvalue())


def named(entries: dict[str, bytes], end: str) -> str:
    (name,) = [name for name in entries if name.endswith(end)]
    return name


WEIGHTS = "model_weights_config.json"


def with_weights(change: Callable[[dict[str, Any]], Any], **more: bytes) -> bytes:
    """The .pt2 with its table of weights changed."""
    entries = dict(program())
    name = named(entries, WEIGHTS)
    table = json.loads(entries[name])
    changed = change(table)
    entries[name] = json.dumps(table if changed is None else changed).encode()
    root = name.split("/")[0]
    return zipped({**entries, **{f"{root}/{key.replace('__', '/')}": value for key, value in more.items()}})


def meta(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda table: table["config"]["weight"]["tensor_meta"].update(changes)


def payload(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda table: table["config"]["weight"].update(changes)


def ints(*values: int) -> list[dict[str, int]]:
    return [{"as_int": value} for value in values]


def without(entries: dict[str, bytes], end: str) -> bytes:
    return zipped({name: content for name, content in entries.items() if not name.endswith(end)})


def instead(entries: dict[str, bytes], end: str, content: bytes, compress: int = zipfile.ZIP_STORED) -> bytes:
    return zipped({**entries, named(entries, end): content}, compress)


PROGRAMS: dict[str, tuple[Callable[[], bytes], str]] = {
    "a pickle for a weight": (lambda: with_weights(payload(use_pickle=True)), "is a pickle or a custom object"),
    "use_pickle that is no truth value": (
        lambda: with_weights(payload(use_pickle=0)),
        "is a pickle or a custom object",
    ),
    "a weight without a description": (lambda: with_weights(payload(tensor_meta=None)), "is a pickle or a custom"),
    "a weight out of the archive": (lambda: with_weights(payload(path_name="../../x")), "has no bytes in the archive"),
    "a weight that is a list": (
        lambda: with_weights(lambda t: t["config"].update(weight=[1])),
        "is a pickle or a custom",
    ),
    "larger than its bytes": (lambda: with_weights(meta(sizes=ints(3, 3))), "does not fit its storage"),
    "2^62 elements": (lambda: with_weights(meta(sizes=ints(2**31, 2**31))), "does not fit its storage"),
    "a petabyte of one number": (
        lambda: with_weights(meta(sizes=ints(2**25, 2**25), strides=ints(0, 0))),
        "repeats a storage",
    ),
    "negative sizes": (lambda: with_weights(meta(sizes=ints(-3, -2))), "no proper storage"),
    "negative strides": (lambda: with_weights(meta(strides=ints(-1, -1))), "no proper storage"),
    "sizes that are symbols": (
        lambda: with_weights(meta(sizes=[{"as_expr": {"expr_str": "s0"}}])),
        "no proper storage",
    ),
    "no sizes": (lambda: with_weights(meta(sizes=None)), "no proper storage"),
    "an offset behind its bytes": (lambda: with_weights(meta(storage_offset={"as_int": 9})), "does not fit"),
    "an unknown type": (lambda: with_weights(meta(dtype=99)), "a type that torch has not"),
    "no table": (lambda: without(program(), WEIGHTS), "no table of weights"),
    "a table that is a list": (lambda: with_weights(lambda _: [1]), "is no table of tensors"),
    "a table without JSON": (lambda: instead(program(), WEIGHTS, b"{"), "is not JSON"),
    "a table that is deep": (lambda: instead(program(), WEIGHTS, b"[" * 200_000), "too deep"),
    "a key twice": (lambda: instead(program(), WEIGHTS, b'{"config": {}, "config": {}}'), "stands in it twice"),
    "no weights": (lambda: with_weights(lambda _: {"config": {}}), "holds no tensors"),
    "no program": (lambda: without(program(), "models/model.json"), "0 programs"),
    "compiled code alone": (
        lambda: zipped({"m/archive_format": b"pt2", "m/data/aotinductor/model/x.so": b"\x7fELF"}),
        "compiled code (AOTInductor), which curvlab never runs",
    ),
    "the layout of before": (
        lambda: zipped({"serialized_exported_program.json": b"{}", "version": b"1"}),
        "the layout before torch 2.8",
    ),
    "a bomb": (lambda: instead(program(), WEIGHTS, bytes(200_000_000), zipfile.ZIP_DEFLATED), "as a zip bomb does"),
    "an entry out of the archive": (lambda: zipped({**program(), "../x": b"1"}), "points out of the archive"),
    "half": (lambda: zipped(program())[:900], "its end is missing: it was cut off (900 bytes)"),
    "sample inputs in capitals": (
        lambda: renamed("sample_inputs", "SAMPLE_INPUTS"),
        "other capitals than torch writes",
    ),
    "weights in capitals": (lambda: renamed("data/weights", "DATA/weights"), "other capitals than torch writes"),
    "a program in capitals": (lambda: renamed("models/", "Models/"), "other capitals than torch writes"),
    "a mark in capitals": (lambda: renamed("archive_format", "ARCHIVE_FORMAT"), "a torch.package archive"),
    "sample inputs twice, last": (lambda: beside("data/SAMPLE_INPUTS/model.pt"), "are one name"),
    "sample inputs twice, first": (lambda: beside("data/SAMPLE_INPUTS/model.pt", first=True), "are one name"),
    "pickled weights of before": (lambda: beside("data/weights/model.pt"), "it holds 'data/weights/model.pt'"),
    "pickled constants of before": (lambda: beside("data/constants/model.pt"), "it holds 'data/constants/model.pt'"),
    "a program of another ending": (lambda: beside("models/other.js_n"), "it holds 'models/other.js_n'"),
    "a program without a name": (lambda: beside("models/"), "it holds 'models/'"),
    "another folder": (lambda: beside("data/x", root="x"), "a zip archive without a model"),
    "a mark outside, first": (lambda: zipped({"archive_format": b"pt2", **program()}), "holds no archive_format"),
    "a mark outside, last": (lambda: zipped({**program(), "archive_format": b"pt2"}), "outside of its folder"),
}


def renamed(old: str, new: str) -> bytes:
    return zipped({name.replace(old, new): content for name, content in program().items()})


def beside(name: str, first: bool = False, root: str = "") -> bytes:
    """The .pt2 with one more entry, which holds a pickle."""
    more = {f"{root or next(iter(program())).split('/')[0]}/{name}": pickle.dumps(Calls(os.system, "true"))}
    return zipped({**more, **program()} if first else {**program(), **more})


DATA = "/data.pkl"


def _capital(end: str) -> str:
    return named(script(), end).removesuffix(end) + end.upper()


def scripted(value: Any) -> bytes:
    return instead(script(), DATA, value if isinstance(value, bytes) else pickled(value))


SCRIPTS: dict[str, tuple[Callable[[], bytes], str]] = {
    "larger than its storage": (lambda: scripted({"w": tensor((3, 3), (3, 1))}), "does not fit its storage"),
    "a petabyte of one number": (lambda: scripted({"w": tensor((2**25, 2**25), (0, 0))}), "repeats a storage"),
    "a storage of 2^60": (lambda: scripted({"w": tensor((2,), storage=Storage(2**60))}), "bytes instead of"),
    "a storage that is not there": (lambda: scripted({"w": tensor((2,), storage=Storage(4, "../9"))}), "has no bytes"),
    "half a pickle": (lambda: scripted(script()[named(script(), DATA)][:-9]), "pickle cannot be followed"),
    "no pickle": (lambda: scripted(b""), "pickle cannot be followed"),
    "no tensors": (lambda: scripted({"epoch": 3}), "holds no tensors"),
    "an executing pickle without tensors": (lambda: scripted(Calls(os.system, "true")), "holds no tensors"),
    "broken constants": (lambda: instead(script(), "constants.pkl", b"\x80\x02("), "pickle cannot be followed"),
    "two pickles": (lambda: zipped({**script(), "other/data.pkl": b"N."}), "2 entries|without a model"),
    "another byte order": (lambda: instead(script(), "byteorder", b"big"), "big-endian"),
    "a bomb of a pickle": (
        lambda: instead(script(), DATA, b"\x80\x02" + b"N0" * 100_000_000 + b"N.", zipfile.ZIP_DEFLATED),
        "as a zip bomb does",
    ),
    "half": (lambda: zipped(script())[:900], "its end is missing: it was cut off (900 bytes)"),
    "attributes in capitals": (lambda: zipped({**script(), _capital(DATA): b"N."}), "are one name"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_dishonest_programs(name: str, tmp_path: Path) -> None:
    make, words = PROGRAMS[name]
    path = tmp_path / "m.pt2"
    path.write_bytes(make())
    for trust in (False, True):
        sentence = refusal(path, trust=trust)
        assert any(word in sentence for word in words.split("|")), sentence


@pytest.mark.parametrize("name", SCRIPTS)
def test_dishonest_scripts(name: str, tmp_path: Path) -> None:
    make, words = SCRIPTS[name]
    path = tmp_path / "m.pt"
    path.write_bytes(make())
    sentence = refusal(path)
    assert any(word in sentence for word in words.split("|")), sentence


def test_honest_archives_load(tmp_path: Path) -> None:
    for name, entries in {"m.pt2": program(), "m.pt": script()}.items():
        (tmp_path / name).write_bytes(zipped(entries))
        checkpoint = load(tmp_path / name)
        assert [(layer.kind, layer.shape) for layer in checkpoint.layers] == [("Linear", (3, 2))]
        assert load(tmp_path / name, trust=True).module is not None


def _marking(marker: Path) -> dict[str, bytes]:
    """Archives that would make a folder when their pickles are opened."""
    touch = Calls(os.mkdir, str(marker))
    constants = dict(program())
    sample = named(constants, "sample_inputs/model.pt")
    buffer = io.BytesIO()
    torch.save((((torch.ones(2, 2),), touch), {}), buffer)
    opaque = json.dumps(
        {"config": {"x": {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}}}
    ).encode()
    table = json.loads(program()[named(program(), WEIGHTS)])["config"]["weight"]
    content = pickle.dumps(touch)
    numbers = {"dtype": 1, "sizes": ints(len(content)), "strides": ints(1), "requires_grad": False}
    disguised = {**table, "path_name": "opaque_obj_0", "tensor_meta": {**table["tensor_meta"], **numbers}}
    root = sample.split("/")[0]
    # torch opens a file that does not begin like a zip as a bare pickle, and one of two entries it takes for the same.
    inputs = io.BytesIO()
    torch.save((((torch.ones(2, 2)),), {}), inputs)
    bare = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2) + pickled(touch)
    capitals = zipped({**entries_of(inputs.getvalue()), "archive/DATA.PKL": pickled(touch)})

    def constant(description: bytes) -> bytes:
        name = named(constants, "model_constants_config.json")
        return zipped({**constants, name: description, f"{root}/data/constants/opaque_obj_0": content})

    return {
        "sample inputs": zipped({**constants, sample: buffer.getvalue()}),
        "sample inputs behind a pickle": zipped({**constants, sample: bare + inputs.getvalue()}),
        "sample inputs with two pickles": zipped({**constants, sample: capitals}),
        "sample inputs with code": zipped({**constants, sample: zipped(script())}),
        "sample inputs that are no archive": zipped({**constants, sample: bare}),
        "opaque object": constant(opaque),
        "opaque object described as numbers": constant(json.dumps({"config": {"x": disguised}}).encode()),
        "attributes": scripted({"w": tensor((2, 2), (2, 1)), "x": touch}),
    }


MARKING = {
    "sample inputs": "mkdir",
    "sample inputs behind a pickle": "sample inputs that cannot be followed",
    "sample inputs with two pickles": "are one name",
    "sample inputs with code": "sample inputs that cannot be followed",
    "sample inputs that are no archive": "sample inputs that cannot be followed",
    "opaque object": "is a pickle or a custom object",
    "opaque object described as numbers": "is a pickle or a custom object",
    "attributes": "",
}


@pytest.mark.parametrize("name", MARKING)
def test_nothing_is_executed(name: str, tmp_path: Path) -> None:
    marker, path = tmp_path / "executed", tmp_path / "m.pt2"
    path.write_bytes(_marking(marker)[name])
    for trust in (False, True):
        if name.startswith("opaque object") or (name.startswith("sample inputs") and trust):
            assert MARKING[name] in refusal(path, trust=trust)
        else:
            assert load(path, trust=trust).layers
    assert not marker.exists()


def test_compiled_code_beside_a_program_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.pt2"
    path.write_bytes(beside("data/aotinductor/model/x.so"))
    monkeypatch.setattr(torch.export, "load", lambda *_, **__: pytest.fail("loaded"))
    checkpoint = load(path, trust=True)
    assert checkpoint.module is None
    assert "compiled code (AOTInductor)" in checkpoint.notes[-1]
