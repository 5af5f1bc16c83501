"""What no single format's tests have: odd weights in every format, wrong names, and the exit code of it all."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import h5py
import onnx
import pytest
import torch
from hostile.refusal import MOST_SECONDS, refusal
from hostile.samples import SAMPLES
from hostile.torch_bytes import FRAMES
from safetensors.torch import save_file
from torch import Tensor

import curvlab
from curvlab.document.json import dumps
from curvlab.formats.load import load
from curvlab.formats.onnx.running.verification import MAX_CHECKED, NotTrusted, check_constants

Weights = dict[str, Tensor]


def _torch(path: Path, weights: Weights) -> None:
    torch.save(weights, path)


def _legacy(path: Path, weights: Weights) -> None:
    torch.save(weights, path, _use_new_zipfile_serialization=False)


def _info(name: str) -> Any:
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n"])


def _onnx(path: Path, weights: Weights) -> None:
    """With an operator that nobody knows: of such a model there are the weights only, as of the other files here."""
    from onnx import helper, numpy_helper, save_model

    info = [_info(name) for name in "xy"]
    tensors = [numpy_helper.from_array(tensor.numpy(), name) for name, tensor in weights.items()]
    graph = helper.make_graph([helper.make_node("Unheard", ["x"], ["y"])], "g", info[:1], info[1:], tensors)
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def _hdf5(path: Path, weights: Weights) -> None:
    roles = {"weight": "kernel", "bias": "bias"}
    with h5py.File(path, "w", libver="latest") as file:
        for name, tensor in weights.items():
            layer, _, role = name.rpartition(".")
            file[f"{layer}/{roles[role]}"] = tensor.numpy()


WRITERS: dict[str, Callable[[Path, Weights], None]] = {
    "safetensors": lambda path, weights: save_file(weights, path),
    "zip": _torch,
    "legacy": _legacy,
    "onnx": _onnx,
    "hdf5": _hdf5,
}
HONEST = {"honest.weight": torch.arange(12.0).reshape(4, 3)}
ODD: dict[str, Weights] = {
    "all NaN": {"fc.weight": torch.full((4, 3), math.nan), "fc.bias": torch.full((4,), math.nan)},
    "one infinity": {"fc.weight": torch.tensor([[1.0, math.inf], [2.0, 3.0]])},
    "constant": {"fc.weight": torch.full((4, 3), 0.5), "fc.bias": torch.zeros(4)},
    "all zero": {"fc.weight": torch.zeros(4, 3)},
    "no rows": {"fc.weight": torch.zeros(0, 3)},
    "no columns": {"fc.weight": torch.zeros(4, 0)},
    "tiny numbers": {"fc.weight": torch.full((4, 3), 1e-42)},
    "huge numbers": {"fc.weight": torch.full((4, 3), 3e38)},
}


@pytest.mark.parametrize("frame", WRITERS)
@pytest.mark.parametrize("name", ODD)
def test_odd_weights_are_analysed_without_a_nan(name: str, frame: str, tmp_path: Path) -> None:
    path = tmp_path / "model"
    WRITERS[frame](path, {**HONEST, **ODD[name]})
    checkpoint = load(path)
    assert set(checkpoint.tensors) >= {"honest.weight"}
    document = json.loads(dumps(curvlab.analyze(checkpoint).to_dict()), parse_constant=lambda text: pytest.fail(text))
    assert "honest" in {layer["name"] for layer in document["layers"]}


@pytest.mark.parametrize("frame", ["zip", "legacy"])
def test_control_tied_weights_stand_once(frame: str, tmp_path: Path) -> None:
    one = torch.ones(4, 3)
    WRITERS[frame](tmp_path / "model", {"embed.weight": one, "head.weight": one})
    checkpoint = load(tmp_path / "model")
    assert list(checkpoint.tensors) == ["embed.weight"]
    assert checkpoint.aliases == {"head.weight": "embed.weight"}


@pytest.mark.parametrize("frame", WRITERS)
def test_many_tiny_tensors_are_read_in_time(frame: str, tmp_path: Path) -> None:
    """Ten times as many are read from safetensors in test_safetensors_files; the time grows with their number."""
    number = 10_000
    WRITERS[frame](tmp_path / "model", {f"l{i}.weight": torch.ones(1, 1) for i in range(number)})
    start = time.monotonic()
    checkpoint = load(tmp_path / "model")
    assert len(checkpoint.tensors) == number
    assert time.monotonic() - start < MOST_SECONDS


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
@pytest.mark.parametrize("frame", ["safetensors", "zip"])
def test_control_small_floats_are_analysed(frame: str, dtype: torch.dtype, tmp_path: Path) -> None:
    exact = torch.tensor([[1.0, -2.0], [0.5, 4.0]])
    WRITERS[frame](tmp_path / "model", {"fc.weight": exact.to(dtype)})
    assert torch.equal(load(tmp_path / "model").tensors["fc.weight"].float(), exact)
    (layer,) = curvlab.analyze(tmp_path / "model").layers
    assert layer.weights is not None


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """Name of a sample -> (the folder with its files, the path to open), each written once."""
    made: dict[str, tuple[Path, Path]] = {}

    def model(name: str) -> tuple[Path, Path]:
        if name not in made:
            folder = tmp_path_factory.mktemp("valid")
            made[name] = folder, SAMPLES[name].write(folder)
        return made[name]

    return model


FILES = [name for name in SAMPLES if name not in {"sharded", "huggingface", "onnx-external"}]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("wrong", ["model.safetensors", "model.onnx", "model"])
def test_control_right_content_under_a_wrong_name(name: str, wrong: str, models: Any, tmp_path: Path) -> None:
    _, path = models(name)
    right = load(path, trust=SAMPLES[name].trust)
    shutil.copy(path, tmp_path / wrong)
    found = load(tmp_path / wrong, trust=SAMPLES[name].trust)
    assert found.format == right.format
    assert list(found.tensors) == list(right.tensors)
    assert (found.module is None) == (right.module is None)


def test_a_whole_h5_without_its_description_gives_weights(models: Any, tmp_path: Path) -> None:
    _, path = models("h5-model")
    shutil.copy(path, tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5", "r+") as file:
        del file.attrs["model_config"]
    found = load(tmp_path / "model.h5")
    assert found.module is None
    assert set(found.tensors) == set(load(path).tensors)
    assert all(note.isprintable() for note in found.notes)


# What stands where a pickle should refer to a storage: the value's own instructions.
NO_REFERENCES = {
    "a number": b"K\x07",
    "nothing": b"N",
    "text": b"X\x01\0\0\0a",
    "a list": b"]",
    "a class": b"ctorch\nSize\n",
}


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("name", NO_REFERENCES)
def test_references_that_are_none(name: str, frame: str, tmp_path: Path) -> None:
    content = b"\x80\x02}X\x01\0\0\0w" + NO_REFERENCES[name] + b"Qs."
    (tmp_path / "m.pt").write_bytes(FRAMES[frame](content))
    assert "it refers to something that is no storage" in refusal(tmp_path / "m.pt")


WITHOUT_WEIGHTS: dict[str, Callable[[Path], Any]] = {
    "a configuration alone": lambda folder: (folder / "model.safetensors").unlink(),
    "an empty weights file": lambda folder: (folder / "model.safetensors").write_bytes(b""),
    "a directory for weights": lambda folder: (
        (folder / "model.safetensors").unlink(),
        (folder / "model.safetensors").mkdir(),
    ),
    "a configuration of a gigabyte": lambda folder: os.truncate(folder / "config.json", 2**30),
    "a configuration that is a list": lambda folder: (folder / "config.json").write_text("[1]"),
    "a configuration of nothing": lambda folder: (folder / "config.json").write_bytes(b""),
    "a deep configuration": lambda folder: (folder / "config.json").write_text('{"model_type":' + "[" * 200_000),
}


@pytest.mark.parametrize("name", WITHOUT_WEIGHTS)
def test_directories_without_a_model(name: str, models: Any, tmp_path: Path) -> None:
    folder, _ = models("huggingface")
    copied = tmp_path / "model"
    shutil.copytree(folder, copied)
    WITHOUT_WEIGHTS[name](copied)
    refusal(copied)


def test_a_pipe_for_a_configuration_is_not_opened(models: Any, tmp_path: Path) -> None:
    folder, _ = models("huggingface")
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    os.mkfifo(tmp_path / "config.json")
    assert load(tmp_path).module is None


@pytest.mark.parametrize("where", ["beside the nodes", "as nodes", "in a branch"])
def test_more_constants_than_a_reference_opens_in_time(where: str, tmp_path: Path) -> None:
    """onnxruntime takes half a minute for a hundred thousand, and an hour for a million."""
    from onnx import TensorProto, helper

    one = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    tensors = [helper.make_tensor(f"w{i}", TensorProto.FLOAT, [1], [1.0]) for i in range(MAX_CHECKED + 1)]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    nodes, beside = [helper.make_node("Add", ["x", "w"], ["y"])], [one]
    if where == "beside the nodes":
        beside += tensors
    elif where == "as nodes":
        nodes += [helper.make_node("Constant", [], [f"c{i}"], value=one) for i in range(MAX_CHECKED)]
    else:
        inner = helper.make_graph([], "b", [], [helper.make_tensor_value_info("w1", TensorProto.FLOAT, [1])], tensors)
        nodes.append(helper.make_node("If", ["yes"], ["z"], then_branch=inner, else_branch=inner))
        beside.append(helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
    graph = helper.make_graph(nodes, "g", [x], [y], beside)
    path = tmp_path / "model.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )
    found = load(path)
    assert found.module is None
    if where == "in a branch":
        with pytest.raises(NotTrusted, match="checking it would take too long"):
            check_constants(onnx.load(path))
    else:
        assert "checking it would take too long" in found.notes[0]


@pytest.mark.parametrize("name", SAMPLES)
def test_half_a_file_is_one_sentence_and_exit_code_1(
    name: str, models: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from curvlab_cli.main import run

    folder, path = models(name)
    shutil.copytree(folder, tmp_path / "model")
    for file in (tmp_path / "model").iterdir():
        if file.suffix != ".json":
            os.truncate(file, file.stat().st_size // 2)
    target = tmp_path / "model" / path.relative_to(folder)
    trust = ["--trust"] if SAMPLES[name].trust else []
    monkeypatch.setattr(sys, "argv", ["curvlab", "analyze", str(target), *trust])
    monkeypatch.delenv("CURVLAB_DEBUG", raising=False)
    with pytest.raises(SystemExit) as stopped:
        run()
    assert stopped.value.code == 1
    out, error = capsys.readouterr()
    said = [line for line in error.splitlines() if line != "curvlab: reading the model"]
    assert out == ""
    assert len(said) == 1
    assert said[0].startswith("curvlab: ")
    assert "bug" not in said[0]
    assert said[0].isprintable()
