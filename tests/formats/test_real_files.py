"""Files that others published: every layer is recognised as what its authors wrote."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from real_models import real_model
from safetensors.torch import load_file

from curvlab.formats.load import load

# name -> format, kind -> how many; together they are all layers of the file.
EXPECTED: dict[str, tuple[str, dict[str, int]]] = {
    "crepe-tiny": ("torch-zip", {"Conv2d": 6, "BatchNorm": 6, "Linear": 1}),
    "pnet": ("torch-legacy", {"Conv2d": 5, "PReLU": 3}),
    "rnet": ("torch-legacy", {"Conv2d": 3, "PReLU": 4, "Linear": 3}),
    "onet": ("torch-legacy", {"Conv2d": 4, "PReLU": 5, "Linear": 4}),
    "silero-torchscript": (
        "torchscript",
        {"Conv1d": 10, "LSTMCell": 2, "buffer": 2, "parameter": 3},
    ),
    "silero": ("safetensors", {"Conv1d": 5, "LSTMCell": 1, "buffer": 1}),
    "resemblyzer": ("torch-legacy", {"LSTM": 1, "Linear": 1, "parameter": 2}),
    "attacut-c": ("torch-legacy", {"Embedding": 1, "Conv1d": 3, "Linear": 2}),
    "attacut-sc": ("torch-legacy", {"Embedding": 2, "Conv1d": 3, "BatchNorm": 3, "Linear": 2}),
    "efficientnet-lite0": ("torch-legacy", {"Conv2d": 49, "BatchNorm": 49, "Linear": 1}),
    "lpips-alex": ("torch-legacy", {"Conv2d": 5}),
    "lpips-vgg": ("torch-legacy", {"Conv2d": 5}),
    "lpips-squeeze": ("torch-legacy", {"Conv2d": 7}),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_layers(name: str) -> None:
    format_name, kinds = EXPECTED[name]
    checkpoint = load(real_model(name))
    assert checkpoint.format == format_name
    assert Counter(layer.kind for layer in checkpoint.layers) == kinds
    described = {stored for layer in checkpoint.layers for stored in layer.tensors.values()}
    assert described == set(checkpoint.tensors)
    assert all(torch.isfinite(tensor).all() for tensor in checkpoint.tensors.values())


def test_values_are_those_that_torch_reads() -> None:
    for name, key in (("crepe-tiny", None), ("onet", None), ("resemblyzer", "model_state")):
        path = real_model(name)
        expected = torch.load(path, weights_only=True, map_location="cpu")
        expected = expected if key is None else expected[key]
        tensors = load(path).tensors
        assert list(tensors) == list(expected)
        assert all(torch.equal(tensors[tensor], expected[tensor]) for tensor in expected)
    path = real_model("silero")
    assert all(torch.equal(load(path).tensors[name], tensor) for name, tensor in load_file(path).items())


def test_the_depthwise_convolutions_of_efficientnet() -> None:
    layers = load(real_model("efficientnet-lite0")).layers
    depthwise = [layer.name for layer in layers if "depthwise" in layer.evidence]
    assert len(depthwise) == 16
    assert all(name.endswith("_depthwise_conv") for name in depthwise)


def test_the_recurrent_layer_of_resemblyzer() -> None:
    checkpoint = load(real_model("resemblyzer"))
    (lstm,) = [layer for layer in checkpoint.layers if layer.kind == "LSTM"]
    assert lstm.shape == (1024, 40)
    assert "3 layers" in lstm.evidence
    assert not any(name.startswith("optimizer") for name in checkpoint.tensors)
