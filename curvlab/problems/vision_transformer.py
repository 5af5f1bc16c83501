"""Vision transformer (Dosovitskiy et al. 2021): patches as tokens, a class token, pre-norm blocks.

The class token and the embedding of positions are bare parameters, added.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from curvlab.problems.transformer_blocks import Block
from curvlab.shapes import Float


class VisionTransformer(nn.Module):
    """Images (n, c, h, w) → class scores (n, classes), read off the class token after the last block.

    Args:
        image: (c, h, w) of one image.
        patch: pixels along one side of a patch; it divides h and w.
        width: of a token.
        hidden: width of the hidden layer of a block's perceptron.
        heads: of attention; they divide `width`.
        num_layers: blocks.
        affine: whether the norms have a scale and a shift.
        dropout: share of entries that are dropped, on the embedded tokens and in the perceptrons.
        classes: how many.

    Raises:
        ValueError: something does not divide as it must.
    """

    def __init__(
        self,
        *,
        image: tuple[int, int, int],
        patch: int,
        width: int,
        hidden: int,
        heads: int,
        num_layers: int,
        affine: bool = True,
        dropout: float = 0.0,
        classes: int = 10,
    ) -> None:
        super().__init__()
        channels, h, w = image
        if h % patch or w % patch:
            raise ValueError(f"patches of {patch} pixels do not tile an image of {h} by {w}")
        if width % heads:
            raise ValueError(f"{heads} heads do not divide {width}")
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        self.class_token = nn.Parameter(torch.randn(1, width))
        self.position = nn.Parameter(torch.randn(1 + (h // patch) * (w // patch), width))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(Block(width, hidden, heads, affine, dropout) for _ in range(num_layers)))
        self.norm = nn.LayerNorm(width, elementwise_affine=affine)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Class scores."""
        tokens = self.patches(x).flatten(2).mT
        first = self.class_token.expand(len(x), 1, -1)
        tokens = self.dropout(torch.cat([first, tokens], dim=1) + self.position)
        scores: Tensor = self.head(self.norm(self.blocks(tokens)[:, 0]))
        return scores
