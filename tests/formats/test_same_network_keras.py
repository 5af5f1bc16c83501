"""The network of `test_same_network` as Keras saves it: channels last, kernels in another order, the same numbers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import curvlab
from tests.formats.test_same_network import network, numbers

os.environ.setdefault("KERAS_BACKEND", "torch")
# Keras' own, when it writes its variables.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def in_keras(module: nn.Sequential) -> Any:
    import keras

    made = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            keras.layers.ZeroPadding2D(1),
            keras.layers.Conv2D(4, 3, strides=2, activation="tanh", name="conv"),
            keras.layers.Permute((3, 1, 2)),  # flattened as torch flattens
            keras.layers.Flatten(),
            keras.layers.Dense(12, activation="tanh", name="fc"),
            keras.layers.Dense(5, name="head"),
        ]
    )
    state = {name: value.detach().numpy() for name, value in module.state_dict().items()}
    made.get_layer("conv").set_weights([state["conv.weight"].transpose(2, 3, 1, 0), state["conv.bias"]])
    for name in ("fc", "head"):
        made.get_layer(name).set_weights([state[f"{name}.weight"].T, state[f"{name}.bias"]])
    return made


@pytest.mark.parametrize("name", ["net.keras", "net.h5"])
def test_keras_files_give_the_same_numbers(name: str, tmp_path: Path) -> None:
    torch.manual_seed(7)
    original = network().eval()
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(200, 3, 6, 6, generator=generator), torch.randint(0, 5, (200,), generator=generator)
    path = tmp_path / name
    in_keras(original).save(path)
    checkpoint = curvlab.load(path)
    assert checkpoint.module is not None, checkpoint.notes
    settings: dict[str, Any] = {"loss": "cross-entropy", "fisher_type": "empirical"}
    found = curvlab.analyze(checkpoint, (x.movedim(1, -1).contiguous(), y), **settings)
    wanted = curvlab.analyze(original, (x, y), **settings)
    assert found.coverage.analyzed == found.coverage.parameters == wanted.coverage.parameters
    for ours, theirs in zip(found.layers, wanted.layers, strict=True):
        assert numbers(ours.weights) == pytest.approx(numbers(theirs.weights), rel=1e-5, nan_ok=True)
        for part in ("moments", "kfac", "tnt"):
            # The modes of a kernel stand in another order.
            mine, other = (sorted(numbers(getattr(one, part))) for one in (ours, theirs))
            assert len(other) > 5
            assert mine == pytest.approx(other, rel=1e-4, abs=1e-6)
