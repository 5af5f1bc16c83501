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
import pytest
import torch
import torch.nn.functional as F
from keras import layers as kl
from real_models import real_model
from torch import Tensor, nn

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
