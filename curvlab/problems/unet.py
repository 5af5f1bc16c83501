"""U-Net (Ronneberger, Fischer & Brox 2015): images to class scores of every pixel, with convolutions padded so that
the scores have the image's size."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from curvlab.shapes import Float


def _convolutions(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.ReLU(),
    )


class UNet(nn.Module):
    """(n, c, h, w) → (n, classes, h, w): down over `widths`, up again, each level joined to its equal on the way down.

    Args:
        channels: c of the images.
        widths: channels at every resolution, the image's own first; each next one has half the pixels a side, so that
            2^(len(widths) − 1) must divide h and w.
        classes: how many.
    """

    def __init__(self, *, channels: int, widths: Sequence[int], classes: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(_convolutions(*pair) for pair in pairwise([channels, *widths]))
        self.pool = nn.MaxPool2d(2)
        rising = list(pairwise(reversed(widths)))
        self.up = nn.ModuleList(nn.ConvTranspose2d(below, own, 2, stride=2) for below, own in rising)
        self.join = nn.ModuleList(_convolutions(2 * own, own) for _, own in rising)
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k h w"]:
        """Class scores of every pixel."""
        levels: list[Tensor] = []
        for convolutions in self.down:
            x = convolutions(self.pool(x) if levels else x)
            levels.append(x)
        for up, join, skipped in zip(self.up, self.join, reversed(levels[:-1]), strict=True):
            x = join(torch.cat([skipped, up(x)], dim=1))
        scores: Tensor = self.head(x)
        return scores
