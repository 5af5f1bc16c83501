"""What a network from a graph declares of its inputs decides how data is made to fit it."""

from __future__ import annotations

import torch
from torch import nn

from curvlab.data.dataset import Dataset
from curvlab.data.fit import fit, input_shape
from curvlab.formats.onnx.reading.graph import Value
from curvlab.formats.onnx.running.network import OnnxNetwork


def network(kind: str, shape: tuple[int | str, ...]) -> OnnxNetwork:
    made = OnnxNetwork([Value("x", kind, shape)], [])  # type: ignore[arg-type]
    made.first = nn.Linear(6, 2)
    return made


def test_whole_numbers_are_not_scaled_for_a_graph_that_takes_them() -> None:
    x = torch.arange(12, dtype=torch.uint8).reshape(2, 6)
    whole = fit(Dataset("d", x, None, "mine"), network("int32", ("n", 6)))
    assert torch.equal(whole.x, x)
    assert whole.notes == ()
    scaled = fit(Dataset("d", x, None, "mine"), network("float32", ("n", 6)))
    torch.testing.assert_close(scaled.x, x.float() / 255)


def test_the_declared_shape_is_that_of_an_example() -> None:
    assert input_shape(network("float32", ("n", 3, 4))) == (3, 4)
    assert input_shape(network("float32", ("n", "t", 4))) == (6,)  # the first layer's
