"""What transformers are made of: attention and pre-norm blocks (Vaswani et al. 2017; Xiong et al. 2020).

Written out in `nn.Linear` and `nn.LayerNorm`, so that every weight belongs to a layer that curvature is computed for.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from curvlab.shapes import Float


class Attention(nn.Module):
    """softmax(Q_h K_hᵀ / √d) V_h for every head h, side by side, times W_out: (n, tokens, width) → the same shape.

    A `causal` one looks at no token behind the one that asks.
    """

    def __init__(self, width: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))

    def forward(self, x: Float[Tensor, "n t d"]) -> Float[Tensor, "n t d"]:
        """Every token's answer."""
        # Not the fused kernel: it has no derivative of its derivative, nor one in forward mode, on every device.
        q, k, v = (self._split(part(x)) for part in (self.query, self.key, self.value))
        scores = q @ k.mT * q.shape[-1] ** -0.5
        if self.causal:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
            scores = scores.masked_fill(later, -torch.inf)
        answer: Tensor = self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        return answer

    def _split(self, x: Tensor) -> Tensor:
        """(n, tokens, width) → (n, heads, tokens, width/heads)."""
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)


class Block(nn.Module):
    """x ← x + attention(norm(x)); x ← x + mlp(norm(x))."""

    def __init__(
        self, width: int, hidden: int, heads: int, affine: bool = True, dropout: float = 0.0, causal: bool = False
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, elementwise_affine=affine)
        self.attention = Attention(width, heads, causal)
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
