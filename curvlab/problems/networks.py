"""Networks of torch's own layers in `nn.Sequential`, named fc1, fc2, …, so that a file can describe them as data."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def mlp(widths: Sequence[int], activation: str = "ReLU", linear: int | None = None) -> nn.Sequential:
    """W_L φ(… φ(W_1 x + b_1) …) + b_L with W_l of shape (widths[l], widths[l − 1]).

    Args:
        widths: from the input's to the output's.
        activation: φ, the name of a class of `torch.nn`.
        linear: the number of a layer with no φ behind it, as the last one has none.
    """
    from torch import nn

    network, last = nn.Sequential(), len(widths) - 1
    for place, (inputs, outputs) in enumerate(pairwise(widths), start=1):
        network.add_module(f"fc{place}", nn.Linear(inputs, outputs))
        if place not in (linear, last):
            network.add_module(f"{activation.lower()}{place}", getattr(nn, activation)())
    return network


def autoencoder(encoder: Sequence[int], activation: str = "ReLU") -> nn.Sequential:
    """`encoder`'s widths and back again; the narrowest layer, the code, is linear (ren Table 2.4). Answers logits."""
    return mlp([*encoder, *reversed(encoder[:-1])], activation, linear=len(encoder) - 1)
