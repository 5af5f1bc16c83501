"""Vision transformer (Dosovitskiy et al. 2021): patches as tokens, a class token, pre-norm blocks.

Written out in `nn.Linear`, `nn.Conv2d` and `nn.LayerNorm`, so that every weight belongs to a layer that curvature is
computed for; the class token and the embedding of positions are bare parameters, added.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from curvlab.shapes import Float


class Attention(nn.Module):
    """softmax(Q_h K_hᵀ / √d) V_h for every head h, side by side, times W_out: (n, tokens, width) → the same shape."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))

    def forward(self, x: Float[Tensor, "n t d"]) -> Float[Tensor, "n t d"]:
        """Every token's answer."""
        # Not the fused kernel: it has no derivative of its derivative, nor one in forward mode, on every device.
        q, k, v = (self._split(part(x)) for part in (self.query, self.key, self.value))
        weights = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)
        answer: Tensor = self.out((weights @ v).transpose(1, 2).flatten(2))
        return answer

    def _split(self, x: Tensor) -> Tensor:
        """(n, tokens, width) → (n, heads, tokens, width/heads)."""
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)


class Block(nn.Module):
    """x ← x + attention(norm(x)); x ← x + mlp(norm(x))."""

    def __init__(self, width: int, hidden: int, heads: int, affine: bool, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, elementwise_affine=affine)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=affine)
        self.fc1 = nn.Linear(width, hidden)
        self.gelu = nn.GELU(approximate="tanh")
        self.fc2 = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "n t d"]) -> Float[Tensor, "n t d"]:
        """The tokens, changed."""
        x = x + self.attention(self.norm1(x))
        step: Tensor = self.dropout(self.fc2(self.dropout(self.gelu(self.fc1(self.norm2(x))))))
        return x + step


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
