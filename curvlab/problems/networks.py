"""Networks of torch's own layers in `nn.Sequential`, named fc1, fc2, …, so that a file can describe them as data."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def mlp(widths: Sequence[int], activation: str = "ReLU", linear: int | None = None, bias: bool = True) -> nn.Sequential:
    """W_L φ(… φ(W_1 x + b_1) …) + b_L with W_l of shape (widths[l], widths[l − 1]).

    Args:
        widths: from the input's to the output's.
        activation: φ, the name of a class of `torch.nn`.
        linear: the number of a layer with no φ behind it, as the last one has none.
        bias: whether there are b.
    """
    from torch import nn

    network, last = nn.Sequential(), len(widths) - 1
    for place, (inputs, outputs) in enumerate(pairwise(widths), start=1):
        network.add_module(f"fc{place}", nn.Linear(inputs, outputs, bias))
        if place not in (linear, last):
            network.add_module(f"{activation.lower()}{place}", getattr(nn, activation)())
    return network


def autoencoder(encoder: Sequence[int], activation: str = "ReLU") -> nn.Sequential:
    """`encoder`'s widths and back again; the narrowest layer, the code, is linear (Ren 2022, Table 2.4). Answers
    logits."""
    return mlp([*encoder, *reversed(encoder[:-1])], activation, linear=len(encoder) - 1)


def all_convolutional(channels: int, widths: tuple[int, int], classes: int) -> nn.Sequential:
    """Nine convolutions and a mean over pixels, ReLU: All-CNN-C (Springenberg et al. 2014), padded all through.

    Three of 3 × 3 with widths[0] channels, three of 3 × 3 with widths[1], the third of each with stride 2; one more of
    3 × 3; two of 1 × 1, the last with one channel per class. No dropout.
    """
    from torch import nn

    first, second = widths
    outputs = [first, first, first, second, second, second, second, second, classes]
    network = nn.Sequential()
    for place, (inputs, width) in enumerate(pairwise([channels, *outputs]), start=1):
        kernel, stride = 3 if place < 8 else 1, 2 if place in (3, 6) else 1
        network.add_module(f"conv{place}", nn.Conv2d(inputs, width, kernel, stride, padding=kernel // 2))
        if place < 9:
            network.add_module(f"relu{place}", nn.ReLU())
    network.add_module("mean", nn.AdaptiveAvgPool2d(1))
    network.add_module("flatten", nn.Flatten())
    return network
