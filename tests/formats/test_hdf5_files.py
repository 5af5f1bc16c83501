"""HDF5 files of Keras: every conversion to torch's layout computes what Keras computes, in both layouts of files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import h5py
import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from keras import layers as kl
from real_models import real_model
from torch import Tensor, nn

from curvlab.errors import MemoryBudgetError
from curvlab.formats.checkpoint import InferredLayer
from curvlab.formats.hdf5.file import KerasCheckpoint, read_hdf5
from curvlab.formats.inference.infer import infer_layers

N, T = 3, 5
# Keras' own, where it writes its variables.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def inferred(stored: KerasCheckpoint) -> tuple[InferredLayer, ...]:
    return infer_layers(stored.specs, stored.tensors, stored.tables).layers


def saved(model: Any, kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> KerasCheckpoint:
    monkeypatch.setattr("absl.logging.warning", lambda *_: None)  # that HDF5 is an old way of saving
    path = folder / ("model.weights.h5" if kind == "keras 3" else "model.h5")
    model.save_weights(path) if kind == "keras 3" else model.save(path)
    if kind == "keras 2, weights only":
        with h5py.File(path, "r") as full, h5py.File(folder / "weights.h5", "w") as bare:
            for key, value in full["model_weights"].attrs.items():
                bare.attrs[key] = value
            for name in full["model_weights"]:
                full.copy(f"model_weights/{name}", bare)
        path = folder / "weights.h5"
    return read_hdf5(path)


def last(first: Tensor) -> Tensor:
    """Channels last."""
    return first.movedim(1, -1)


def fed(module: nn.Module, tensors: dict[str, Tensor], x: Tensor) -> Any:
    module.load_state_dict(tensors)
    return module(x)


def bias(t: dict[str, Tensor]) -> Tensor:
    """Keras' LSTM has one bias where torch has two."""
    return torch.zeros_like(t["bias_ih_l0"])


Compute = Callable[[dict[str, Tensor], Tensor], Tensor]
# name -> the layer, the shape of one input, torch's kind, the same computed by torch from the tensors read.
CONVERSIONS: dict[str, tuple[Callable[[], Any], tuple[int, ...], str, Compute]] = {
    "Dense": (lambda: kl.Dense(4), (5,), "Linear", lambda t, x: F.linear(x, t["weight"], t["bias"])),
    "square Dense": (lambda: kl.Dense(5), (5,), "Linear", lambda t, x: F.linear(x, t["weight"], t["bias"])),
    "Dense without bias": (lambda: kl.Dense(4, use_bias=False), (5,), "Linear", lambda t, x: x @ t["weight"].mT),
    "Conv1D": (
        lambda: kl.Conv1D(4, 3),
        (7, 2),
        "Conv1d",
        lambda t, x: last(F.conv1d(x.mT, t["weight"], t["bias"])),
    ),
    "Conv2D": (
        lambda: kl.Conv2D(4, (2, 3)),
        (6, 7, 2),
        "Conv2d",
        lambda t, x: last(F.conv2d(x.movedim(-1, 1), t["weight"], t["bias"])),
    ),
    "Conv2D in groups": (
        lambda: kl.Conv2D(6, (2, 3), groups=2),
        (6, 7, 4),
        "Conv2d",
        lambda t, x: last(F.conv2d(x.movedim(-1, 1), t["weight"], t["bias"], groups=2)),
    ),
    "Conv3D": (
        lambda: kl.Conv3D(4, (2, 3, 1)),
        (4, 5, 3, 2),
        "Conv3d",
        lambda t, x: last(F.conv3d(x.movedim(-1, 1), t["weight"], t["bias"])),
    ),
    "Conv1DTranspose": (
        lambda: kl.Conv1DTranspose(4, 3),
        (7, 2),
        "ConvTranspose1d",
        lambda t, x: last(F.conv_transpose1d(x.mT, t["weight"], t["bias"])),
    ),
    "Conv2DTranspose": (
        lambda: kl.Conv2DTranspose(4, (2, 3)),
        (6, 7, 3),
        "ConvTranspose2d",
        lambda t, x: last(F.conv_transpose2d(x.movedim(-1, 1), t["weight"], t["bias"])),
    ),
    "DepthwiseConv2D": (
        lambda: kl.DepthwiseConv2D((2, 3), depth_multiplier=2),
        (6, 7, 3),
        "Conv2d",
        lambda t, x: last(F.conv2d(x.movedim(-1, 1), t["weight"], t["bias"], groups=3)),
    ),
    "SeparableConv2D": (
        lambda: kl.SeparableConv2D(5, (2, 3), depth_multiplier=2),
        (6, 7, 3),
        "Conv2d",
        lambda t, x: last(
            F.conv2d(
                F.conv2d(x.movedim(-1, 1), t["depthwise.weight"], groups=3), t["pointwise.weight"], t["pointwise.bias"]
            )
        ),
    ),
    "BatchNormalization": (
        lambda: kl.BatchNormalization(),
        (4,),
        "BatchNorm",
        lambda t, x: F.batch_norm(x, t["running_mean"], t["running_var"], t["weight"], t["bias"], eps=1e-3),
    ),
    "BatchNormalization without scale": (
        lambda: kl.BatchNormalization(scale=False),
        (4,),
        "BatchNorm",
        lambda t, x: F.batch_norm(x, t["running_mean"], t["running_var"], None, t["bias"], eps=1e-3),
    ),
    "LayerNormalization": (
        lambda: kl.LayerNormalization(),
        (T, 4),
        "LayerNorm",
        lambda t, x: F.layer_norm(x, (4,), t["weight"], t["bias"], eps=1e-3),
    ),
    "PReLU": (lambda: kl.PReLU(shared_axes=[1]), (T, 4), "PReLU", lambda t, x: F.prelu(x.mT, t["weight"]).mT),
    "LSTM": (
        lambda: kl.LSTM(4, return_sequences=True),
        (T, 3),
        "LSTM",
        lambda t, x: fed(nn.LSTM(3, 4, batch_first=True), {**t, "bias_hh_l0": bias(t)}, x)[0],
    ),
    "both directions": (
        lambda: kl.Bidirectional(kl.LSTM(4, return_sequences=True)),
        (T, 3),
        "LSTM",
        lambda t, x: fed(
            nn.LSTM(3, 4, batch_first=True, bidirectional=True),
            {**t, "bias_hh_l0": bias(t), "bias_hh_l0_reverse": bias(t)},
            x,
        )[0],
    ),
    "GRU": (
        lambda: kl.GRU(4, return_sequences=True),
        (T, 3),
        "GRU",
        lambda t, x: fed(nn.GRU(3, 4, batch_first=True), t, x)[0],
    ),
    "GRU without bias": (
        lambda: kl.GRU(4, return_sequences=True, use_bias=False),
        (T, 3),
        "GRU",
        lambda t, x: fed(nn.GRU(3, 4, batch_first=True, bias=False), t, x)[0],
    ),
    "SimpleRNN": (
        lambda: kl.SimpleRNN(4, return_sequences=True),
        (T, 3),
        "RNN",
        lambda t, x: fed(nn.RNN(3, 4, batch_first=True), {**t, "bias_hh_l0": bias(t)}, x)[0],
    ),
}


@pytest.mark.parametrize("kind", ["keras 3", "keras 2", "keras 2, weights only"])
@pytest.mark.parametrize("name", CONVERSIONS)
def test_conversions_compute_what_keras_computes(
    name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, shape, torch_kind, compute = CONVERSIONS[name]
    layer = make()
    model = keras.Sequential([keras.Input(shape), layer])
    for variable in model.variables:
        if variable.value.is_floating_point():
            drawn = torch.randn(variable.shape)
            variable.assign(drawn.abs() + 0.5 if "variance" in variable.name else drawn)
    stored = saved(model, kind, tmp_path, monkeypatch)
    prefix = f"{layer.name}."
    assert all(tensor.startswith(prefix) for tensor in stored.tensors)
    tensors = {tensor.removeprefix(prefix): stored.tensors[tensor] for tensor in stored.tensors}
    assert {full: tuple(stored.tensors[full].shape) for full in stored.tensors} == {
        full: spec.shape for full, spec in stored.specs.items()
    }
    x = torch.randn(N, *shape)
    torch.testing.assert_close(compute(tensors, x), model(x), rtol=1e-4, atol=1e-5)
    found = inferred(stored)
    # By names and shapes alone, one-dimensional weights look alike.
    alike = {"LayerNorm": "LayerNorm/GroupNorm", "PReLU": "RMSNorm/PReLU"}
    assert {entry.kind for entry in found} == {alike.get(torch_kind, torch_kind)}


@pytest.mark.parametrize("kind", ["keras 3", "keras 2"])
def test_attention_embedding_and_nested_models(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = keras.Input((T,))
    h = kl.Embedding(11, 6, name="words")(words)
    h = kl.MultiHeadAttention(2, 3, name="look")(h, h)
    inner = keras.Sequential([kl.Dense(6, name="wide"), kl.Dense(2, name="narrow")], name="inner")
    model = keras.Model(words, inner(h))
    stored = saved(model, kind, tmp_path, monkeypatch)
    kinds = {entry.name: entry.kind for entry in inferred(stored)}
    assert kinds == {
        "words": "Embedding",  # whatever its name: Keras calls its variable or its class so
        "look.query": "Linear",
        "look.key": "Linear",
        "look.value": "Linear",
        "look.attention_output": "Linear",
        "inner.wide": "Linear",
        "inner.narrow": "Linear",
    }
    (query,) = [entry for entry in inferred(stored) if entry.name == "look.query"]
    assert "query of the attention look" in query.evidence
    x = torch.randint(0, 11, (N, T))
    t = dict(stored.tensors)
    e = F.embedding(x, t["words.weight"])
    q, k, v = (
        F.linear(e, t[f"look.{name}.weight"], t[f"look.{name}.bias"]).unflatten(-1, (2, 3)).transpose(1, 2)
        for name in ("query", "key", "value")
    )
    y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    y = F.linear(y, t["look.attention_output.weight"], t["look.attention_output.bias"])
    for name in ("inner.wide", "inner.narrow"):
        y = F.linear(y, t[f"{name}.weight"], t[f"{name}.bias"])
    torch.testing.assert_close(y, model(x), rtol=1e-4, atol=1e-5)


def keras2(path: Path, weights: dict[str, dict[str, np.ndarray]], root: str = "model_weights") -> Path:
    """A file as Keras 2 wrote it: names of layers and weights in lists of bytes, weights with ":0"."""
    with h5py.File(path, "w") as file:
        top = file.create_group(root) if root else file
        top.attrs["layer_names"] = np.array([name.encode() for name in weights], dtype="S40")
        for layer, own in weights.items():
            group = top.create_group(layer)
            group.attrs["weight_names"] = np.array([name.encode() for name in own], dtype="S60")
            for name, value in own.items():
                group[name] = value
    return path


@pytest.mark.parametrize("root", ["model_weights", ""])
def test_files_of_keras_2(root: str, tmp_path: Path) -> None:
    kernel = np.arange(6, dtype="f4").reshape(2, 3)
    weights = {
        "zeta": {"zeta_1/kernel:0": kernel, "zeta_1/bias:0": np.zeros(3, "f4")},
        "drop": {},
        "alpha": {"alpha/kernel:0": kernel.T.copy(), "alpha/bias:0": np.zeros(2, "f4")},
        "model_1": {"beta/kernel:0": kernel},
        "rnn": {
            "rnn/lstm_cell_2/kernel:0": np.zeros((2, 8), "f4"),
            "rnn/lstm_cell_2/recurrent_kernel:0": np.zeros((2, 8), "f4"),
        },
    }
    stored = read_hdf5(keras2(tmp_path / "model.h5", weights, root))
    assert list(stored.specs) == [
        "zeta.weight",
        "zeta.bias",
        "alpha.weight",
        "alpha.bias",
        "model_1.beta.weight",
        "rnn.weight_ih_l0",
        "rnn.weight_hh_l0",
    ]
    assert stored.ordered
    assert torch.equal(stored.tensors["zeta.weight"], torch.tensor(kernel).mT)


def test_long_lists_of_names_are_cut_into_parts(tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names0"] = np.array([b"b"])
        file.attrs["layer_names1"] = np.array([b"a"])
        for name in "ab":
            file.create_group(name).attrs["weight_names"] = np.array([f"{name}/kernel:0".encode()])
            file[f"{name}/{name}/kernel:0"] = np.zeros((2, 3), "f4")
    assert list(read_hdf5(path).specs) == ["b.weight", "a.weight"]


def test_element_types(tmp_path: Path) -> None:
    path = tmp_path / "types.h5"
    wanted = {
        name: torch.tensor([0, 1, 1]).to(getattr(torch, name))
        for name in ("float64", "float32", "float16", "int64", "int32", "int8", "uint8", "bool", "complex64")
    }
    with h5py.File(path, "w") as file:
        for name, tensor in wanted.items():
            file[f"a/{name}"] = tensor.numpy()
        file["a/big"] = np.arange(3, dtype=">f4")
        bits = torch.tensor([0.0, 1.5, -2.0]).bfloat16().view(torch.int16).numpy()
        file.create_dataset("a/bfloat16", data=bits.view("V2"))
        file["a/text"] = "not a number"
        file["a/texts"] = np.array([b"x", b"y"])
        file["a/pairs"] = np.zeros(2, dtype=[("x", "f4"), ("y", "i4")])
        file["a/nothing"] = h5py.Empty("f4")
    stored = read_hdf5(path)
    for name, tensor in wanted.items():
        assert stored.specs[f"a.{name}"].dtype == name
        assert torch.equal(stored.tensors[f"a.{name}"], tensor)
    assert torch.equal(stored.tensors["a.big"], torch.arange(3.0))
    assert torch.equal(stored.tensors["a.bfloat16"], torch.tensor([0.0, 1.5, -2.0], dtype=torch.bfloat16))
    assert len(stored.specs) == len(wanted) + 2
    assert any("a/nothing" in note and "a/pairs" in note and "a/text" in note for note in stored.notes)


def test_compressed_and_tied_tensors_and_optimizers(tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    kernel = np.random.default_rng(0).normal(size=(40, 30)).astype("f4")
    with h5py.File(path, "w") as file:
        file.create_dataset("one/kernel", data=kernel, compression="gzip", shuffle=True, chunks=(8, 8))
        file["two/kernel"] = file["one/kernel"]  # a second name of the same numbers
        file["optimizer_weights/adam/one/kernel/m:0"] = kernel
    stored = read_hdf5(path)
    assert list(stored.specs) == ["one.weight"]
    assert stored.aliases == {"two.weight": "one.weight"}
    assert torch.equal(stored.tensors["one.weight"], torch.tensor(kernel).mT)
    assert any("optimizer" in note for note in stored.notes)
    with pytest.raises(MemoryBudgetError, match="takes 4800 bytes"):
        read_hdf5(path, max_memory=4000).tensors["one.weight"]


def test_a_file_that_changed_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    keras2(path, {"a": {"a/kernel:0": np.zeros((2, 3), "f4")}})
    stored = read_hdf5(path)
    path.unlink()
    keras2(path, {"a": {"a/kernel:0": np.zeros((5, 3), "f4")}})
    with pytest.raises(Exception, match="changed while it was being read"):
        stored.tensors["a.weight"]


def test_the_emotion_model() -> None:
    stored = read_hdf5(real_model("fer"))
    found = inferred(stored)
    assert Counter(entry.kind for entry in found) == {"Conv2d": 23, "BatchNorm": 14}
    separable = [entry for entry in found if entry.name.startswith("separable_conv2d_1.")]
    assert [(entry.name, entry.shape) for entry in separable] == [
        ("separable_conv2d_1.depthwise", (8, 1, 3, 3)),
        ("separable_conv2d_1.pointwise", (16, 8, 1, 1)),
    ]
    assert stored.metadata == {"keras_version": "2.0.5"}
    assert all(torch.isfinite(tensor).all() for tensor in stored.tensors.values())


def test_the_edge_detector() -> None:
    stored = read_hdf5(real_model("hed"))
    found = inferred(stored)
    assert Counter(entry.kind for entry in found) == {"Conv2d": 19}
    assert {entry.name for entry in found} >= {"block1.block1_conv1", "block5.block5_conv3", "dsn1", "fuse"}
    with h5py.File(real_model("hed")) as file:
        raw = file["block3/layers/conv2d_1/vars/0"][()]
    assert torch.equal(stored.tensors["block3.block3_conv2.weight"], torch.tensor(raw).permute(3, 2, 0, 1))
