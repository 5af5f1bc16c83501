"""Keras files from an enemy: nothing a description names is run; what is no attack gives its weights and the reason.

A description that names code (a Lambda layer, a class its author registered) is common in honest files, so the weights
are read and the network is not built. One that names Python's own library is no network's.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import h5py
import numpy as np
import pytest
from hostile.refusal import refusal

from curvlab.formats.hdf5.keras_config import MAX_CALLS
from curvlab.formats.load import load

WEIGHTS = {"layers/dense/vars/0": np.ones((4, 3), "f4"), "layers/dense/vars/1": np.ones(3, "f4")}
METADATA = json.dumps({"keras_version": "3.15.1"}).encode()


def weights(more: Callable[[h5py.File], None] = lambda file: None) -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for path, value in WEIGHTS.items():
            file[path] = value
        file["layers/dense/vars"].attrs["name"] = "only"
        more(file)
    return stream.getvalue()


def dense(**changes: Any) -> dict[str, Any]:
    config = {"name": "only", "units": 3, "activation": "linear", "use_bias": True}
    entry = {"module": "keras.layers", "class_name": "Dense", "config": config, "registered_name": None}
    return {**entry, "build_config": {"input_shape": [None, 4]}, **changes}


def sequential(*layers: Any) -> dict[str, Any]:
    inputs = {"batch_shape": [None, 4], "dtype": "float32", "name": "in"}
    first = {"module": "keras.layers", "class_name": "InputLayer", "config": inputs, "registered_name": None}
    config = {"name": "model", "trainable": True, "layers": [first, *layers]}
    return {"module": "keras", "class_name": "Sequential", "config": config, "registered_name": None}


def archive(path: Path, entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return path


def keras_file(path: Path, config: Any, **entries: bytes) -> Path:
    text = config if isinstance(config, bytes) else json.dumps(config).encode()
    own = {"metadata.json": METADATA, "config.json": text, "model.weights.h5": weights()}
    return archive(path, {**own, **{name.replace("__", "/"): content for name, content in entries.items()}})


def code(marker: Path) -> dict[str, Any]:
    """A Lambda layer whose code would make the marker."""
    import base64
    import marshal

    made = compile(f"lambda x: __import__('os').mkdir({str(marker)!r}) or x", "model", "eval").co_consts[0]
    value = {"code": base64.b64encode(marshal.dumps(made)).decode(), "defaults": None, "closure": None}
    function = {"class_name": "__lambda__", "config": value}
    return dense(class_name="Lambda", config={"name": "only", "function": function, "arguments": {}})


def function(module: str | None, name: str) -> dict[str, Any]:
    entry = {"class_name": "function", "config": name, "registered_name": name}
    return entry if module is None else {**entry, "module": module}


def nested(depth: int) -> dict[str, Any]:
    """A network within a network, each applied twice by the one around it."""
    inner: dict[str, Any] = dense()
    for i in range(depth):
        layers = [{**inner, "inbound_nodes": [{"args": []}, {"args": []}]}]
        config = {"name": f"n{i}", "layers": layers}
        inner = {"module": "keras", "class_name": "Functional", "config": config, "registered_name": "Functional"}
    return inner


# name -> the description, words of the note: the weights are read, no network is built.
FOREIGN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a Lambda with code": (lambda marker: sequential(code(marker)), "has a Lambda layer, whose Python code"),
    "a bare lambda": (
        lambda marker: sequential(dense(config={"activation": code(marker)["config"]["function"]})),
        "has a Lambda layer",
    ),
    "a registered class": (
        lambda _: sequential(dense(class_name="Mine", module="mine", registered_name="mine>Mine")),
        "names 'mine.Mine', which is outside of Keras",
    ),
    "a registered name on Keras' own class": (
        lambda _: sequential(dense(registered_name="mine>Dense")),
        "names 'mine>Dense', a class that its author registered",
    ),
    "a custom class of before": (lambda _: sequential(dense(module=None, class_name="Mine")), "'Mine', which is not"),
    "another package": (lambda _: sequential(dense(module="torch.nn", class_name="Module")), "outside of Keras"),
    "a builtin": (lambda _: sequential(dense(module="builtins", class_name="eval")), "'builtins.eval', which is not"),
    "a function of Keras": (
        lambda _: sequential(dense(config={"activation": function("keras.utils", "get_file")})),
        "names the function 'keras.utils.get_file'",
    ),
    "a function of nowhere": (
        lambda _: sequential(dense(config={"activation": function("builtins", "eval")})),
        "names the function 'builtins.eval'",
    ),
    "a module that leads out of Keras": (
        lambda _: sequential(dense(module="keras.src.saving.saving_lib.os", class_name="path")),
        "which is not on the list",
    ),
    "a module beside Keras": (lambda _: sequential(dense(module="keras_evil")), "outside of Keras"),
    "a saved model of TensorFlow": (
        lambda _: sequential(dense(class_name="TFSMLayer", config={"filepath": "/etc"})),
        "'keras.layers.TFSMLayer', which is not on the list",
    ),
    "a torch module in a pickle": (
        lambda _: sequential(dense(class_name="TorchModuleWrapper", config={"module": "gASV"})),
        "TorchModuleWrapper",
    ),
    "a vocabulary in another file": (
        lambda _: sequential(dense(class_name="StringLookup", config={"vocabulary": "/etc/passwd"})),
        "StringLookup",
    ),
    "an array of objects": (
        lambda _: sequential(dense(config={"x": {"class_name": "__numpy__", "config": {"dtype": "U999999"}}})),
        "__numpy__",
    ),
    "an optimizer within": (
        lambda _: sequential({**sequential(dense()), "compile_config": {"optimizer": "adam"}}),
        "settings of its training",
    ),
    "a network applied 2^20 times": (lambda _: sequential(nested(20)), f"applied more than {MAX_CALLS} times"),
    "twenty-five thousand layers": (lambda _: sequential(*[dense()] * 25_000), f"applied more than {MAX_CALLS} times"),
    "networks two hundred deep": (lambda _: sequential(nested(200)), f"applied more than {MAX_CALLS} times"),
    "a class that is a list": (lambda _: sequential(dense(class_name=["Dense"])), "by something that is no text"),
    "a module that is a number": (lambda _: sequential(dense(module=7)), "by something that is no text"),
    "no JSON": (lambda _: b"{", "its description cannot be read (it is not JSON"),
    "no UTF-8": (lambda _: b"\xff\xfe{}", "its description cannot be read"),
    "a list": (lambda _: [sequential(dense())], "its description is no table"),
    "a key twice": (lambda _: b'{"class_name": "Sequential", "class_name": "Lambda"}', "stands in it twice"),
    "200,000 deep": (lambda _: b'{"a":' + b"[" * 200_000, "nested too deep"),
    "a name that clears the screen": (lambda _: sequential(dense(class_name="\x1b[2J")), "\\x1b[2J"),
}
HOSTILE = {
    "os": sequential(dense(module="os", class_name="system", config="touch marker")),
    "subprocess": sequential(dense(module="subprocess", class_name="Popen", config={"args": ["touch", "marker"]})),
    "os, as a function": sequential(dense(config={"activation": function("os", "system")})),
    "a submodule": sequential(dense(module="importlib.util", class_name="find_spec")),
}


@pytest.mark.parametrize("frame", ["keras", "h5"])
@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_descriptions_are_not_built(name: str, frame: str, tmp_path: Path) -> None:
    make, words = FOREIGN[name]
    marker, path = tmp_path / "executed", tmp_path / f"model.{frame}"
    checkpoint = load(_framed(path, make(marker)))
    assert checkpoint.module is None
    (note,) = [note for note in checkpoint.notes if note.startswith("no network was built, for ")]
    assert words in note
    assert note.isprintable()
    assert set(checkpoint.tensors) == {"only.weight", "only.bias"}
    assert not marker.exists()


@pytest.mark.parametrize("frame", ["keras", "h5"])
@pytest.mark.parametrize("name", HOSTILE)
def test_descriptions_of_python_s_own_library_are_refused(
    name: str, frame: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sentence = refusal(_framed(tmp_path / f"model.{frame}", HOSTILE[name]))
    assert "is not safe to read: it names '" in sentence
    assert "outside of Keras" in sentence
    assert not (tmp_path / "marker").exists()


def _framed(path: Path, config: Any) -> Path:
    if path.suffix == ".keras":
        return keras_file(path, config)
    text = config if isinstance(config, bytes) else json.dumps(config).encode()

    def described(file: h5py.File) -> None:
        file.attrs.create("model_config", np.frombuffer(text, "u1").tobytes(), dtype=h5py.string_dtype())

    path.write_bytes(weights(described))
    return path


def test_the_code_of_the_lambda_does_run_elsewhere(tmp_path: Path) -> None:
    """The control: Keras runs it when it is told to trust the file."""
    import keras

    marker = tmp_path / "executed"
    path = keras_file(tmp_path / "model.keras", sequential(code(marker)))
    with contextlib.suppress(Exception):  # the code returns no tensor, which Keras notices afterwards
        keras.saving.load_model(path, safe_mode=False, compile=False)
    assert marker.exists()


def test_the_honest_file_has_a_network(tmp_path: Path) -> None:
    module = load(keras_file(tmp_path / "model.keras", sequential(dense()))).module
    assert module is not None
    assert [name for name, _ in module.named_parameters()] == ["only.kernel", "only.bias"]


@pytest.mark.parametrize("units", [10**9, 10**12, 2**62])
def test_a_description_of_more_weights_than_there_are(units: int, tmp_path: Path) -> None:
    layer = dense(config={"name": "only", "units": units})
    checkpoint = load(keras_file(tmp_path / "model.keras", sequential(layer)))
    assert checkpoint.module is None
    assert any("no network was built" in note for note in checkpoint.notes)


ARCHIVES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "without config.json": (
        lambda path: archive(path, {"metadata.json": METADATA, "model.weights.h5": weights()}),
        "a zip archive without a model",
    ),
    "without weights": (
        lambda path: archive(path, {"metadata.json": METADATA, "config.json": b"{}", "model.weights.npz": b""}),
        "a Keras model without model.weights.h5",
    ),
    "weights that are no HDF5": (
        lambda path: keras_file(path, sequential(dense()), **{"model.weights.h5": bytes(1000)}),
        "a damaged HDF5 file",
    ),
    "truncated weights": (
        lambda path: keras_file(path, sequential(dense()), **{"model.weights.h5": weights()[:900]}),
        "a damaged HDF5 file",
    ),
    "a link in the weights": (
        lambda path: keras_file(
            path,
            sequential(dense()),
            **{"model.weights.h5": weights(lambda f: f.__setitem__("x", h5py.ExternalLink("/etc/passwd", "/")))},
        ),
        "is a link into another file",
    ),
    "entries that lead out": (lambda path: keras_file(path, sequential(dense()), **{"..__x": b""}), "points out of"),
    "a compressed bomb": (
        lambda path: archive(
            path,
            {"metadata.json": METADATA, "config.json": b"{}", "model.weights.h5": bytes(200_000_000)},
            zipfile.ZIP_DEFLATED,
        ),
        "as a zip bomb does",
    ),
    "half an archive": (lambda path: _half(keras_file(path, sequential(dense()))), "is broken"),
}


def _half(path: Path) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


@pytest.mark.parametrize("name", ARCHIVES)
def test_dishonest_archives_are_refused(name: str, tmp_path: Path) -> None:
    make, words = ARCHIVES[name]
    assert words in refusal(make(tmp_path / "model.keras"))


def test_a_description_of_300_megabytes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("metadata.json", METADATA)
        file.writestr("model.weights.h5", weights())
        with file.open("config.json", "w", force_zip64=True) as entry:
            for _ in range(300):
                entry.write(b" " * 10**6)
    assert "config.json of 300000000 bytes is longer than any network's" in refusal(path)


def test_further_entries_are_not_unpacked(tmp_path: Path) -> None:
    path = keras_file(tmp_path / "model.keras", sequential(dense()), assets__table=b"x")
    checkpoint = load(path)
    assert checkpoint.module is None
    assert any("which Keras would read too" in note for note in checkpoint.notes)
