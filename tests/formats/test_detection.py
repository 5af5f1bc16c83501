"""Formats told by content: each of the table is found under a misleading name, and answered if it cannot be read."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
import torch
from gguf_files import KINDS, write_gguf
from onnx import TensorProto, helper
from safetensors.torch import save, save_file
from torch import nn

from curvlab.errors import CheckpointError
from curvlab.formats.detect import detect
from curvlab.formats.format import FORMATS
from curvlab.formats.load import load


def _archive(**entries: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return buffer.getvalue()


def _torch(legacy: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save({"fc.weight": torch.ones(2, 2)}, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def _onnx() -> bytes:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in "xy")
    weight = helper.make_tensor("fc.weight", TensorProto.FLOAT, [2, 2], [1.0, 2.0, 3.0, 4.0])
    graph = helper.make_graph([helper.make_node("Gemm", ["x", "fc.weight"], ["y"])], "g", [x], [y], [weight])
    return bytes(helper.make_model(graph).SerializeToString())


def _hdf5() -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["w"] = np.ones(3)
    return buffer.getvalue()


def _keras() -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["layers/dense/vars/0"], file["layers/dense/vars/1"] = np.ones((2, 3), np.float32), np.ones(3, np.float32)
    entries = {"config_dot_json": b"{}", "metadata_dot_json": b"{}", "model_dot_weights_dot_h5": buffer.getvalue()}
    return _archive(**entries)


def _numpy() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.ones(3))
    return buffer.getvalue()


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("storages", "tensors", "pickle"):
            archive.addfile(tarfile.TarInfo(name))
    return buffer.getvalue()


def _exported() -> bytes:
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),)), buffer)
    return buffer.getvalue()


def _scripted() -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():  # torch calls its own format deprecated
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), buffer)
    return buffer.getvalue()


def _gguf() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return write_gguf(Path(folder) / "m", {"fc.weight": KINDS.Q8_0}).read_bytes()


CONTENT: dict[str, Callable[[], bytes]] = {
    "safetensors": lambda: save({"fc.weight": torch.ones(2, 2)}),
    "torch-zip": lambda: _torch(legacy=False),
    "torch-legacy": lambda: _torch(legacy=True),
    "torchscript": lambda: _scripted(),
    "pt2": _exported,
    "torch-package": lambda: _archive(**{"m__.data__version": b"6", "m__x_dot_py": b""}),
    "torch-tar": _tar,
    "pickle": lambda: pickle.dumps({"fc.weight": torch.ones(2, 2)}),
    "onnx": _onnx,
    "keras": lambda: _keras(),
    "hdf5": _hdf5,
    "gguf": _gguf,
    "tflite": lambda: b"\x1c\x00\x00\x00TFL3" + bytes(64),
    "numpy": _numpy,
}


@pytest.mark.parametrize("name", CONTENT)
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_content_decides(name: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model.{suffix}"
    path.write_bytes(CONTENT[name]())
    assert detect(path).format.name == name
    if FORMATS[name].support == "recognised only":
        with pytest.raises(CheckpointError) as caught:
            load(path)
        assert "\n" not in str(caught.value)
        assert FORMATS[name].what in str(caught.value)
    else:
        assert load(path).format == name


@pytest.mark.parametrize(
    ("name", "config"),
    [("huggingface", {"model_type": "bert", "architectures": ["BertModel"]}), ("timm", {"architecture": "resnet18"})],
)
def test_directories(name: str, config: object, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert detect(tmp_path).format.name == name
    with pytest.raises(CheckpointError, match="and no weights; give the weights file itself"):
        load(tmp_path)
    save_file({"fc.weight": torch.ones(2, 2)}, tmp_path / "model.safetensors")
    checkpoint = load(tmp_path)
    assert checkpoint.format == name
    assert checkpoint.module is None
    assert "weights only: " in checkpoint.notes[-1]


def test_every_format_of_the_table_is_detected() -> None:
    others = {"curvlab", "safetensors-sharded", "huggingface", "peft", "timm", "tensorflow"}
    assert set(CONTENT) | others == set(FORMATS)


def test_an_empty_onnx_model_is_none(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(onnx.ModelProto(ir_version=8, producer_name="x").SerializeToString())
    with pytest.raises(CheckpointError, match="no model format"):
        load(tmp_path / "m.onnx")


def test_what_is_no_model_is_told_where_the_formats_are(tmp_path: Path) -> None:
    (tmp_path / "m.bin").write_bytes(b"\x01junk" * 40)
    with pytest.raises(CheckpointError, match="'curvlab list formats' shows what it can read"):
        load(tmp_path / "m.bin")


def test_the_header_of_123_bytes_is_no_json(tmp_path: Path) -> None:
    content = save({"w": torch.ones(2, 2)}, {"pad": ""})
    short = 123 - int.from_bytes(content[:8], "little")
    header = content[8 : 8 + 123 - short].rstrip() + b" " * 123
    path = tmp_path / "m"
    path.write_bytes((123).to_bytes(8, "little") + header[:123] + content[-16:])
    assert path.read_bytes()[:1] == b"{"
    assert load(path).format == "safetensors"


def test_the_table_is_light() -> None:
    code = "import sys, curvlab.formats.format, curvlab.formats.load; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
