"""A layer of one's own: s = W (x − c) + b with a constant c, a linear layer of centred inputs."""

from __future__ import annotations

import torch
from torch import nn

from curvlab.layers.layer import adapt
from curvlab.layers.linear import LinearLayer


class Centred(nn.Linear):
    """The module."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.register_buffer("centre", torch.full((inputs,), 0.5))

    def forward(self, x):
        return super().forward(x - self.centre)


class CentredLayer(LinearLayer):
    """Its features are x − c."""

    def __init__(self, module):
        super().__init__(module.weight, module.bias, "Centred")
        self.centre = module.centre

    def prepare(self, x):
        return x - self.centre


@adapt.register
def _(module: Centred):
    return CentredLayer(module)
