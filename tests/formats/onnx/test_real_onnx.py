"""Published ONNX files: which are run and which are read for their weights only, and why; two profiled end to end."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from formats.onnx.models import opened, runtime
from real_models import real_model

import curvlab
from curvlab.formats.load import load

# Name -> kinds of the modules with parameters, for a network that is run.
RUNNABLE: dict[str, dict[str, int]] = {
    "magika": {"Linear": 2, "Conv2d": 1},
    "basic-pitch": {"Conv2d": 25},
    "silero-onnx-sequence": {"Conv1d": 6, "LSTM": 1},
    "silero-onnx-openvino": {"Conv1d": 6, "LSTM": 1},
}
# Name -> the reason, and how many weights there are, for a file that is read only.
WEIGHTS_ONLY = {
    "silero-onnx": ("operator If is not supported: branches and loops of the graph are not run", 30),
    "silero-onnx-16k": ("operator If is not supported: branches and loops of the graph are not run", 15),
    "silero-onnx-half": ("operator If is not supported: branches and loops of the graph are not run", 15),
    "silero-onnx-ifless": ("operator If is not supported: branches and loops of the graph are not run", 32),
}
# Inputs that are not random: what a second call is compared on.
INPUTS: dict[str, Any] = {
    "magika": lambda: {"bytes": torch.randint(0, 257, (5, 2048), dtype=torch.int32)},
    "basic-pitch": lambda: {"serving_default_input_2:0": 0.1 * torch.randn(1, 43844, 1)},
    "silero-onnx-sequence": lambda: {
        "input": 0.1 * torch.randn(7, 576),
        "h": torch.zeros(1, 1, 128),
        "c": torch.zeros(1, 1, 128),
    },
    "silero-onnx-openvino": lambda: {"input": 0.1 * torch.randn(1, 576), "state": torch.randn(2, 1, 128)},
}
ON_DATA = ("moments", "kfac", "tnt")


def kinds(module: torch.nn.Module) -> Counter[str]:
    own = (part for part in module.modules() if list(part.parameters(recurse=False)))
    return Counter(type(part).__name__ for part in own if type(part) is not torch.nn.Module)


@pytest.mark.parametrize("name", RUNNABLE)
def test_a_published_model_is_run_and_agrees_with_onnxruntime(name: str) -> None:
    path = real_model(name)
    stored, network = opened(path)
    module = network.module
    assert module is not None, network.notes
    assert kinds(module) == RUNNABLE[name]
    assert {*stored.specs, *stored.aliases} >= {name for name, _ in module.named_parameters(remove_duplicate=False)}
    inputs = INPUTS[name]()
    with torch.no_grad():
        found = module(**inputs)
    for ours, theirs in zip(found if isinstance(found, tuple) else (found,), runtime(path, **inputs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))


@pytest.mark.parametrize("name", WEIGHTS_ONLY)
def test_a_published_model_with_branches_is_read_for_its_weights(name: str) -> None:
    reason, count = WEIGHTS_ONLY[name]
    checkpoint = load(real_model(name))
    assert checkpoint.module is None
    assert any(reason in note for note in checkpoint.notes)
    assert len(checkpoint.tensors) == count
    assert Counter(layer.kind for layer in checkpoint.layers)["Conv1d"] >= 5


def test_the_two_forms_of_silero_hold_the_same_weights() -> None:
    """TorchScript keeps a cell, ONNX a layer with its gates in another order; once read, all 30 tensors are equal."""
    ours, theirs = load(real_model("silero-onnx")), load(real_model("silero-torchscript"))
    mine, other = _fingerprints(ours), _fingerprints(theirs)
    assert (mine & other).total() == len(ours.tensors) == 30


def _fingerprints(checkpoint: Any) -> Counter[tuple[Any, ...]]:
    return Counter(_print(tensor) for tensor in checkpoint.tensors.values())


def _print(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tuple(tensor.shape), tensor.double().sum().item(), tensor.double().square().sum().item()


def test_magika_is_profiled_with_data() -> None:
    """Every parameter is in a layer with moments, Kronecker and tensor-normal factors."""
    x = torch.randint(0, 257, (4, 2048), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    analysis = curvlab.analyze(real_model("magika"), x, loss="cross-entropy", analyses=ON_DATA)
    assert [layer.name for layer in analysis.layers if layer.kind in ("Linear", "Conv2d")] == [
        "Dense_0",
        "Conv_0",
        "Dense_1",
    ]
    assert analysis.coverage.analyzed == analysis.coverage.parameters == 784_214
    assert all(layer.moments and layer.kfac and layer.tnt for layer in analysis.layers)


def test_basic_pitch_is_profiled_with_data() -> None:
    x = 0.1 * torch.randn(2, 43844, 1, generator=torch.Generator().manual_seed(0))
    analysis = curvlab.analyze(real_model("basic-pitch"), x, loss="bce", analyses=ON_DATA)
    assert Counter(layer.kind for layer in analysis.layers) == {"Conv2d": 9, "Parameter (scale)": 1}
    assert analysis.coverage.analyzed == analysis.coverage.parameters == 35_734
    assert all(layer.moments and layer.kfac and layer.tnt for layer in analysis.layers)
