"""Decoder of text (Radford et al. 2019, in small): causal pre-norm blocks over embedded tokens, logits of the next
token at every position."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from curvlab.problems.transformer_blocks import Block
from curvlab.shapes import Float, Int


class TextTransformer(nn.Module):
    """Token numbers (n, t) → logits of the token after each (n, t, vocabulary).

    Args:
        vocabulary: different tokens.
        length: most positions of one example.
        width: of an embedded token.
        hidden: width of the hidden layer of a block's perceptron.
        heads: of attention; they divide `width`.
        num_layers: blocks.

    Raises:
        ValueError: heads that do not divide the width.
    """

    def __init__(self, *, vocabulary: int, length: int, width: int, hidden: int, heads: int, num_layers: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads do not divide {width}")
        self.embed = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(torch.randn(length, width))
        self.blocks = nn.Sequential(*(Block(width, hidden, heads, causal=True) for _ in range(num_layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, x: Int[Tensor, "n t"]) -> Float[Tensor, "n t k"]:
        """Logits."""
        positions = self.position if x.shape[1] == len(self.position) else self.position[: x.shape[1]]
        tokens = self.embed(x) + positions
        logits: Tensor = self.head(self.norm(self.blocks(tokens)))
        return logits
