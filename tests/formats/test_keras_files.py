"""Keras models: the archive read in part, the network built by Keras itself, its layers profiled with data."""

from __future__ import annotations

import copy
import json
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import curvlab_keras  # noqa: F401 - registers the adapters, as the installed plugin does
import h5py
import keras
import numpy as np
import pytest
import torch
from keras import layers as kl
from real_models import real_model

from curvlab.analyses.analyze import analyze
from curvlab.capture.survey import survey
from curvlab.formats.format import Network
from curvlab.formats.hdf5.file import KerasCheckpoint, read_hdf5
from curvlab.formats.keras.file import read_keras
from curvlab.formats.keras.network import keras_network

N = 3
# Keras' own, where it writes its variables.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def images() -> Any:
    x = keras.Input((8, 8, 3))
    h = kl.Conv2D(4, 3, padding="same", strides=2, activation="relu", name="conv")(x)
    h = kl.BatchNormalization(name="norm")(h)
    h = kl.SeparableConv2D(5, 3, name="separable")(h) * 2.0
    h = kl.Dropout(0.5)(kl.Flatten()(h))
    head = keras.Sequential([kl.Dense(6, activation="tanh", name="wide"), kl.Dense(3, name="narrow")], name="head")
    return _randomised(keras.Model(x, head(h)))


def words() -> Any:
    x = keras.Input((5,))
    h = kl.Embedding(11, 4, name="table")(x)
    h = kl.Bidirectional(kl.LSTM(3, return_sequences=True), name="both")(h)
    h = kl.MultiHeadAttention(2, 3, name="look")(h, h)
    h = kl.GRU(4, name="memory")(h)
    return _randomised(keras.Model(x, kl.Dense(2, name="out")(h)))


def _randomised(model: Any) -> Any:
    for variable in model.variables:
        if variable.value.is_floating_point():
            drawn = torch.randn(variable.shape) * 0.5
            variable.assign(drawn.abs() + 0.5 if "variance" in variable.name else drawn)
    return model


MODELS = {
    "images": (images, lambda: torch.randn(N, 8, 8, 3)),
    "words": (words, lambda: torch.randint(0, 11, (N, 5))),
}


def keras_file(path: Path, model: Any) -> tuple[KerasCheckpoint, Network]:
    model.save(path)
    stored = read_keras(path) if path.suffix == ".keras" else read_hdf5(path)
    return stored, keras_network(path, stored, None)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("absl.logging.warning", lambda *_: None)  # that HDF5 is an old way of saving


# Keras writes a multiplication by hand to HDF5 so that it cannot read it again.
@pytest.mark.parametrize(("name", "suffix"), [("images", "keras"), ("words", "keras"), ("words", "h5")])
def test_the_network_computes_what_the_saved_one_did(name: str, suffix: str, tmp_path: Path) -> None:
    make, data = MODELS[name]
    model, x = make(), data()
    stored, network = keras_file(tmp_path / f"model.{suffix}", model)
    assert network.made_by == f"Keras {keras.__version__}"
    assert network.notes == ()
    assert network.module is not None
    torch.testing.assert_close(network.module(x), model(x), rtol=0, atol=0)
    # The weights read from the file are those of the network, turned.
    total = sum(p.double().square().sum() for p in network.module.parameters())
    held = sum(stored.tensors[tensor].double().square().sum() for tensor in stored.tensors if "running" not in tensor)
    torch.testing.assert_close(total, held)


def test_names_are_plain() -> None:
    from curvlab.formats.keras.module import KerasModule

    keras.utils.clear_session()  # Keras numbers the names it makes up
    network = KerasModule(words())
    names = [name for name, _ in network.named_parameters()]
    assert names[:4] == [
        "table.embeddings",
        "both.forward_lstm.lstm_cell.kernel",
        "both.forward_lstm.lstm_cell.recurrent_kernel",
        "both.forward_lstm.lstm_cell.bias",
    ]
    assert {"look.query.kernel", "memory.gru_cell.bias", "out.kernel"} <= set(names)
    assert {name for name, _ in KerasModule(images()).named_parameters()} >= {"head.wide.kernel", "head.narrow.bias"}
    assert [name for name, _ in KerasModule(images()).named_buffers()] == ["norm.moving_mean", "norm.moving_variance"]
    assert all("/" not in name and "_torch_params" not in name for name, _ in network.named_modules())
    assert set(network.state_dict()) == set(names)


@pytest.mark.parametrize("name", MODELS)
def test_copies_are_independent_and_equal(name: str, tmp_path: Path) -> None:
    make, data = MODELS[name]
    network, x = keras_file(tmp_path / "model.keras", make())[1].module, data()
    assert network is not None
    copied = copy.deepcopy(network)
    assert [n for n, _ in copied.named_parameters()] == [n for n, _ in network.named_parameters()]
    torch.testing.assert_close(copied(x), network(x), rtol=0, atol=0)
    before = network(x)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
    assert torch.equal(network(x), before)
    assert not torch.equal(copied(x), before)
    assert next(copy.deepcopy(network.double()).parameters()).dtype == torch.float64


def test_train_and_eval_reach_keras(tmp_path: Path) -> None:
    network, x = keras_file(tmp_path / "model.keras", images())[1].module, torch.randn(N, 8, 8, 3)
    assert network is not None
    assert not network.training
    mean = dict(network.named_buffers())["norm.moving_mean"]
    before = mean.clone()
    network(x)
    assert torch.equal(mean, before)
    network.train()(x)
    assert not torch.equal(mean, before)


@pytest.mark.parametrize("suffix", ["keras", "h5"])
@pytest.mark.parametrize("wrong", ["bin", "zip", "h5.old"])
def test_the_ending_of_the_name_plays_no_part(suffix: str, wrong: str, tmp_path: Path) -> None:
    model = words()
    model.save(tmp_path / f"model.{suffix}")
    path = (tmp_path / f"model.{suffix}").rename(tmp_path / f"model.{wrong}")
    stored = read_keras(path) if suffix == "keras" else read_hdf5(path)
    network = keras_network(path, stored, None)
    assert network.module is not None, network.notes


def test_a_compressed_archive(tmp_path: Path) -> None:
    model = words()
    model.save(tmp_path / "model.keras")
    packed = tmp_path / "packed.keras"
    with zipfile.ZipFile(tmp_path / "model.keras") as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    stored = read_keras(packed)
    own = read_keras(tmp_path / "model.keras")
    assert list(stored.specs) == list(own.specs)
    assert all(torch.equal(stored.tensors[name], own.tensors[name]) for name in own.tensors)
    assert keras_network(packed, stored, None).module is not None


ENDS = {
    "softmax of a Dense": lambda: [kl.Dense(3, activation="softmax", name="end")],
    "sigmoid of a Dense": lambda: [kl.Dense(3, activation="sigmoid", name="end")],
    "Activation": lambda: [kl.Dense(3), kl.Activation("softmax", name="end")],
    "Softmax": lambda: [kl.Dense(3), kl.Softmax(name="end")],
    "within": lambda: [keras.Sequential([kl.Dense(3, activation="softmax", name="end")])],
}


@pytest.mark.parametrize("name", ENDS)
def test_the_network_gives_logits(name: str, tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), kl.Dense(5, activation="sigmoid"), *ENDS[name]()])
    network = keras_file(tmp_path / "model.keras", model)[1]
    assert network.module is not None
    (note,) = network.notes
    assert "'end') is left off: its outputs are logits" in note
    x = torch.randn(N, 4)
    for module in (network.module, copy.deepcopy(network.module)):
        logits = module(x)
        probabilities = logits.sigmoid() if "sigmoid" in name else logits.softmax(-1)
        torch.testing.assert_close(probabilities, model(x), rtol=1e-5, atol=1e-6)


def test_a_recurrent_layer_as_tf_keras_described_it(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((5, 3)), kl.LSTM(4, name="memory"), kl.Dense(2, name="end")])
    path = tmp_path / "model.h5"
    model.save(path)
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        (lstm,) = [layer for layer in config["config"]["layers"] if layer["class_name"] == "LSTM"]
        lstm["config"] |= {"time_major": False, "implementation": 2}
        file.attrs["model_config"] = json.dumps(config)
    network = keras_network(path, read_hdf5(path), None)
    assert network.module is not None, network.notes
    x = torch.randn(N, 5, 3)
    torch.testing.assert_close(network.module(x), model(x), rtol=0, atol=0)
    blocks = survey(copy.deepcopy(network.module), x).blocks
    assert set(blocks) == {"memory.kernel", "memory.recurrent_kernel", "end.kernel"}
    with h5py.File(path, "r+") as file:
        lstm["config"]["time_major"] = True
        file.attrs["model_config"] = json.dumps(config)
    assert "time_major" in keras_network(path, read_hdf5(path), None).notes[0]


def small(path: Path) -> Path:
    keras.Sequential([keras.Input((4,)), kl.Dense(3, name="only")]).save(path)
    return path


def test_without_keras_there_are_weights_and_the_name_of_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = small(tmp_path / "model.keras")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    network = keras_network(path, read_keras(path), None)
    assert network.module is None
    assert "pip install 'curvlab[keras]'" in network.notes[0]


def test_another_backend_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = small(tmp_path / "model.keras")
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    network = keras_network(path, read_keras(path), None)
    assert network.module is None
    assert "on the backend 'jax', and torch is needed" in network.notes[0]
    monkeypatch.delitem(sys.modules, "keras")
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    assert "KERAS_BACKEND is 'tensorflow'" in keras_network(path, read_keras(path), None).notes[0]


def test_more_memory_than_is_allowed_is_not_taken(tmp_path: Path) -> None:
    path = small(tmp_path / "model.keras")
    network = keras_network(path, read_keras(path), 20)
    assert network.module is None
    assert "its weights take 60 bytes and --max-memory allows 20" in network.notes[0]


def test_weights_alone_ask_for_an_architecture(tmp_path: Path) -> None:
    path = tmp_path / "model.weights.h5"
    words().save_weights(path)
    network = keras_network(path, read_hdf5(path), None)
    assert network.module is None
    assert network.notes == (
        "the file holds weights only: --architecture package.module:callable gives a full profile",
    )


def test_the_emotion_model_is_profiled_with_data(tmp_path: Path) -> None:
    """64×64 grey pictures: moments of every layer, its Kronecker and its tensor-normal factors."""
    path = real_model("fer")
    network = keras_network(path, read_hdf5(path), None)
    assert network.module is not None, network.notes
    assert "the softmax at the end of the network ('predictions') is left off" in network.notes[0]
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "faces.npz", x=rng.normal(size=(12, 64, 64, 1)).astype("f4"), y=np.arange(12, dtype="i8") % 7)
    result = analyze(
        network.module,
        str(tmp_path / "faces.npz"),
        analyses=("moments", "kfac", "tnt"),
        loss="cross-entropy",
    )
    kinds = [layer.kind for layer in result.layers]
    assert kinds.count("SeparableConv2D") == 16  # depthwise and pointwise
    assert kinds.count("Conv2D") == 7
    assert kinds.count("BatchNormalization") == 14
    for layer in result.layers:
        assert layer.moments is not None, layer.name
        assert layer.kfac is not None, layer.name
        assert layer.tnt is not None, layer.name
    assert len(result.layers) == 37
    names = {layer.name for layer in result.layers}
    assert {"conv2d_1.kernel", "separable_conv2d_1.depthwise_kernel", "batch_normalization_1"} <= names
