"""Every adapter keeps the layer contract: per-example gradients against autograd, in float64, through whole models."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import curvlab_keras  # noqa: F401 - registers the adapters once Keras is imported, which it is not yet
import keras
import pytest
import torch
from keras import layers as kl
from keras.src.backend.common import dtypes
from torch import Tensor

from curvlab.capture.survey import survey
from curvlab.errors import UnsupportedLayer
from curvlab.formats.keras.module import KerasModule
from curvlab.layers.layer import adapt
from curvlab.testing import check_layer

N, T, IN = 5, 4, 3
ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _double_precision(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keras on torch rounds float64 to float32 in its operations; here it must not, for oracles in float64."""
    monkeypatch.setitem(dtypes.BIT64_TO_BIT32_DTYPE, "float64", "float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy("float32")


def model(*layers: Any, shape: tuple[int | None, ...]) -> KerasModule:
    """A Sequential of layers with random weights, biases too."""
    made = keras.Sequential([keras.Input(shape, dtype="float64"), *layers])
    for variable in made.trainable_variables:
        variable.assign(torch.randn(variable.shape, dtype=torch.float64) * 0.5)
    return KerasModule(made)


def image(*shape: int) -> Tensor:
    return torch.randn(N, *shape, dtype=torch.float64)


DENSE = {
    "linear": {},
    "activation": {"activation": "tanh"},
    "activation that is a layer": {"activation": lambda: kl.LeakyReLU(negative_slope=0.3)},
    "without bias": {"use_bias": False, "activation": "sigmoid"},
}


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("shape", [(IN,), (T, IN)])
def test_dense(name: str, shape: tuple[int, ...]) -> None:
    options = {key: o() if key == "activation" and callable(o) else o for key, o in DENSE[name].items()}
    check_layer(model(kl.Dense(2, **options), shape=shape), image(*shape))


CONVOLUTIONS = {
    "1d": (kl.Conv1D, {}, (7, 2)),
    "1d same strided": (kl.Conv1D, {"padding": "same", "strides": 2}, (7, 2)),
    "1d causal dilated": (kl.Conv1D, {"padding": "causal", "dilation_rate": 2}, (9, 2)),
    "2d": (kl.Conv2D, {"activation": "relu"}, (6, 7, 2)),
    "2d same": (kl.Conv2D, {"padding": "same", "use_bias": False}, (6, 7, 2)),
    "2d same strided, even": (kl.Conv2D, {"padding": "same", "strides": 2}, (6, 8, 2)),
    "2d same strided, odd": (kl.Conv2D, {"padding": "same", "strides": (2, 3)}, (7, 7, 2)),
    "2d same dilated": (kl.Conv2D, {"padding": "same", "dilation_rate": (1, 2)}, (6, 7, 2)),
    "2d groups": (kl.Conv2D, {"groups": 2, "activation": "tanh"}, (6, 7, 4)),
    "2d channels first": (kl.Conv2D, {"data_format": "channels_first", "padding": "same"}, (2, 6, 7)),
    "3d": (kl.Conv3D, {"padding": "same"}, (3, 4, 6, 2)),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name: str) -> None:
    base, options, shape = CONVOLUTIONS[name]
    check_layer(model(base(4, 3, **options), shape=shape), image(*shape))


DEPTHWISE = {
    "1d": (kl.DepthwiseConv1D, {}, (7, 2)),
    "1d several filters": (kl.DepthwiseConv1D, {"padding": "same", "depth_multiplier": 2}, (7, 2)),
    "2d": (kl.DepthwiseConv2D, {"activation": "relu"}, (6, 7, 3)),
    "2d several filters": (kl.DepthwiseConv2D, {"depth_multiplier": 2, "padding": "same", "strides": 2}, (6, 7, 3)),
    "2d channels first": (kl.DepthwiseConv2D, {"depth_multiplier": 2, "data_format": "channels_first"}, (3, 6, 7)),
}


@pytest.mark.parametrize("name", DEPTHWISE)
def test_depthwise_convolutions(name: str) -> None:
    base, options, shape = DEPTHWISE[name]
    check_layer(model(base(3, **options), shape=shape), image(*shape))


SEPARABLE = {
    "1d": (kl.SeparableConv1D, {"padding": "same", "dilation_rate": 2}, (7, 2)),
    "2d": (kl.SeparableConv2D, {"activation": "tanh", "padding": "same", "strides": 2}, (6, 7, 3)),
    "2d several filters": (kl.SeparableConv2D, {"depth_multiplier": 2, "use_bias": False}, (6, 7, 3)),
    "2d channels first": (kl.SeparableConv2D, {"data_format": "channels_first"}, (3, 6, 7)),
}


@pytest.mark.parametrize("name", SEPARABLE)
def test_separable_convolutions(name: str) -> None:
    base, options, shape = SEPARABLE[name]
    network = model(base(4, 3, **options), shape=shape)
    check_layer(network, image(*shape))
    found = survey(network, image(*shape))
    ((layer, _),) = network.named_children()
    assert list(found.blocks) == [f"{layer}.depthwise_kernel", f"{layer}.pointwise_kernel"]


NORMS = {
    "batch": (kl.BatchNormalization, {}, (IN,)),
    "batch of images": (kl.BatchNormalization, {"scale": False}, (4, 6, 2)),
    "batch, channels first": (kl.BatchNormalization, {"axis": 1, "center": False}, (2, 4, 6)),
    "layer": (kl.LayerNormalization, {}, (T, IN)),
    "layer over two axes": (kl.LayerNormalization, {"axis": [1, 2]}, (T, IN)),
    "layer without scale": (kl.LayerNormalization, {"scale": False}, (T, IN)),
}


@pytest.mark.parametrize("name", NORMS)
def test_norms(name: str) -> None:
    base, options, shape = NORMS[name]
    check_layer(model(base(**options), shape=shape), image(*shape))


def test_batch_norm_in_training_mode_normalises_by_the_batch() -> None:
    network = model(kl.BatchNormalization(), shape=(4, 6, 2)).train()
    layer = adapt(network.model.layers[0])
    x = image(4, 6, 2)
    normalised = layer.prepare(x, training=True)
    own = torch.nn.functional.batch_norm(x.movedim(-1, 1), None, None, training=True, eps=1e-3).movedim(1, -1)
    torch.testing.assert_close(normalised, own, rtol=0, atol=1e-12)
    before = network.model.layers[0].moving_mean.value.clone()
    survey(network, x)
    assert torch.equal(before, network.model.layers[0].moving_mean.value)  # a look leaves the statistics alone


def test_embedding() -> None:
    made = keras.Sequential([keras.Input((T,), dtype="int32"), kl.Embedding(7, IN, mask_zero=True)])
    check_layer(KerasModule(made), torch.randint(0, 7, (N, T)))


RECURRENT = {
    "lstm": (kl.LSTM, {}),
    "lstm, all steps": (kl.LSTM, {"return_sequences": True, "use_bias": False}),
    "lstm backwards": (kl.LSTM, {"go_backwards": True, "return_sequences": True, "activation": "relu"}),
    "lstm, loop unrolled": (kl.LSTM, {"unroll": True}),
    "simple": (kl.SimpleRNN, {"return_sequences": True}),
    "gru": (kl.GRU, {}),
    "gru, all steps": (kl.GRU, {"return_sequences": True}),
    "gru without bias": (kl.GRU, {"use_bias": False, "recurrent_activation": "hard_sigmoid"}),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers(name: str) -> None:
    base, options = RECURRENT[name]
    check_layer(model(base(2, **options), shape=(T, IN)), image(T, IN))


@pytest.mark.parametrize("base", [kl.LSTM, kl.GRU])
def test_both_directions(base: Any) -> None:
    inner = base(2, return_sequences=True)
    check_layer(model(kl.Bidirectional(inner), shape=(T, IN)), image(T, IN))


@pytest.mark.parametrize("base", [kl.LSTMCell, kl.GRUCell, kl.SimpleRNNCell])
@pytest.mark.parametrize("count", [1, 2])
def test_cells(base: Any, count: int) -> None:
    cells = [base(2 + i, name=f"cell_{i}") for i in range(count)]
    layer = kl.RNN(cells if count > 1 else cells[0], return_sequences=True, name="rnn")
    network = model(layer, shape=(T, IN))
    check_layer(network, image(T, IN))
    found = survey(network, image(T, IN))
    assert all(block.positions == T for block in found.blocks.values())
    assert ("rnn.cell_1.kernel" in found.blocks) == (count > 1)


@pytest.mark.parametrize("base", [kl.LSTM, kl.GRU])
def test_masked_steps(base: Any) -> None:
    x = image(T, IN)
    x[1:3, 2:] = 0
    check_layer(model(kl.Masking(), base(2), shape=(T, IN)), x)


def test_maps_are_named_after_kernels() -> None:
    network = model(kl.LSTM(2, name="memory"), kl.Dense(3, name="head"), shape=(T, IN))
    found = survey(network, image(T, IN))
    assert found.refused == {}
    assert {name: (b.positions, dict(b.parameters)) for name, b in found.blocks.items()} == {
        "memory.kernel": (T, {"weight": "memory.lstm_cell.kernel", "bias": "memory.lstm_cell.bias"}),
        "memory.recurrent_kernel": (T, {"weight": "memory.lstm_cell.recurrent_kernel"}),
        "head.kernel": (1, {"weight": "head.kernel", "bias": "head.bias"}),
    }


class OwnDense(kl.Dense):
    def call(self, inputs: Any, training: Any = None) -> Any:
        return super().call(inputs) * 2


def quantised() -> Any:
    layer = kl.Dense(4)
    layer.build((None, 4))
    layer.quantize("int8")
    return layer


def low_rank() -> Any:
    layer = kl.Dense(4)
    layer.build((None, 4))
    layer.enable_lora(2)
    return layer


def built(layer: Any, *shape: int) -> Any:
    layer.build((None, *shape))
    return layer


class OwnCell(kl.SimpleRNNCell):
    def call(self, inputs: Any, states: Any, training: Any = False) -> Any:
        return super().call(inputs, states, training)


REFUSED = {
    "a cell of its own": (
        lambda: built(kl.RNN(OwnCell(2)), T, IN),
        "OwnCell is a SimpleRNNCell with a call of its own",
    ),
    "a cell of another kind": (lambda: built(kl.ConvLSTM1D(2, 3), T, 5, 2), "no adapter|call of its own"),
    "not built": (lambda: kl.Dense(3), "is not built"),
    "a call of its own": (lambda: built(OwnDense(3), 4), "OwnDense is a Dense with a call of its own"),
    "low rank": (low_rank, "low-rank adapters"),
    "quantised": (quantised, "packed integers"),
    "reset before": (lambda: built(kl.GRU(2, reset_after=False), T, IN), "applied to two inputs"),
    "nothing trained": (lambda: built(kl.BatchNormalization(scale=False, center=False), IN), "nothing that is trained"),
    "axes apart": (lambda: built(kl.LayerNormalization(axis=[1, 3]), 2, 3, 4), "not side by side"),
}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras' own, when it quantises
@pytest.mark.parametrize("name", REFUSED)
def test_refusals_say_why(name: str) -> None:
    make, words = REFUSED[name]
    with pytest.raises(UnsupportedLayer, match=words):
        adapt(make())


@pytest.mark.parametrize("base", [kl.LSTM, kl.GRU])
def test_dropout_between_gates_is_refused_only_in_training_mode(base: Any) -> None:
    network = model(base(2, recurrent_dropout=0.3), shape=(T, IN))
    check_layer(network, image(T, IN))
    refused = survey(network.train(), image(T, IN)).refused
    assert any("masks differ from gate to gate" in why for why in refused.values())


def test_the_layer_is_as_before_after_it_was_recorded() -> None:
    network = model(kl.Dense(3, activation="tanh"), kl.Reshape((1, 3)), kl.LSTM(2), shape=(IN,))
    dense, _, lstm = network.model.layers
    x = image(IN)
    before, keys = network(x), [set(vars(dense)), set(vars(lstm)), set(vars(lstm.cell))]
    survey(network, x)
    assert torch.equal(network(x), before)
    assert [set(vars(dense)), set(vars(lstm)), set(vars(lstm.cell))] == keys
    assert dense.activation is keras.activations.tanh
