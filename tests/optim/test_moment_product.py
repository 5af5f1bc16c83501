"""Σ (āᵀs)ā is the formed second moment times s, Σ a the sum of all rows, for every kind of layer (ren eq. 3.15)."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from curvlab.layers.layer import Layer, adapt
from curvlab.layers.registered import load_layers
from curvlab.optim.kbfgs.feature_total import feature_total
from curvlab.optim.kbfgs.moment_product import moment_product

pytestmark = pytest.mark.usefixtures("float64")
LAYERS = {
    "linear": (nn.Linear(5, 3), (4, 5)),
    "linear without bias": (nn.Linear(5, 3, bias=False), (4, 5)),
    "tokens": (nn.Linear(5, 3), (4, 6, 5)),
    "conv1d": (nn.Conv1d(3, 4, 3, stride=2, padding=1), (4, 3, 9)),
    "conv2d": (nn.Conv2d(3, 4, 3, padding=1), (4, 3, 5, 6)),
    "dilated, no bias": (nn.Conv2d(3, 4, (3, 2), dilation=2, bias=False), (4, 3, 7, 6)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2, padding=1), (3, 4, 5, 5)),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4), (3, 4, 5, 5)),
    "reflect": (nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (3, 2, 5, 5)),
    "same": (nn.Conv2d(2, 3, 4, padding="same"), (3, 2, 5, 5)),
    "conv3d": (nn.Conv3d(2, 3, 2), (2, 2, 3, 3, 3)),
    "transposed": (nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1), (3, 3, 4, 4)),
    "transposed, grouped": (nn.ConvTranspose1d(4, 6, 3, stride=2, groups=2), (3, 4, 5)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_it_is_the_formed_moment_times_the_vector(name: str) -> None:
    load_layers()
    module, shape = LAYERS[name]
    layer, x = adapt(module.double()), torch.randn(shape)
    assert isinstance(layer, Layer)
    rows = layer.features(x).flatten(1, 2)
    torch.testing.assert_close(feature_total(layer, x), rows.sum(1), rtol=1e-10, atol=1e-10)
    if layer.biased:
        rows = F.pad(rows, (0, 1), value=1.0)
    s = torch.randn(layer.groups, rows.shape[2])
    wanted = (rows.mT @ rows @ s[..., None])[..., 0]
    torch.testing.assert_close(moment_product(layer, x, s), wanted, rtol=1e-10, atol=1e-10)
