"""The networks of the benchmarks: an MLP and a ResNet-18 for 32×32 images, with random data and fixed seeds."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


def mlp(examples: int = 512) -> tuple[nn.Module, Tensor, Tensor]:
    """784-1024-512-256-128-64-10 with ReLU."""
    torch.manual_seed(0)
    sizes = [784, 1024, 512, 256, 128, 64, 10]
    layers: list[nn.Module] = []
    for i, o in pairwise(sizes):
        layers += [nn.Linear(i, o), nn.ReLU()]
    return nn.Sequential(*layers[:-1]), torch.rand(examples, 784), torch.randint(0, 10, (examples,))


class Residual(nn.Module):
    """Two 3×3 convolutions with batch norm and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Residual and shortcut, added."""
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def resnet18(stem: int = 7, examples: int = 64) -> tuple[nn.Module, Tensor, Tensor]:
    """ResNet-18 on 3×32×32: the original stem (7×7, stride 2, max-pool) or the 3×3 one common for small images."""
    torch.manual_seed(0)
    layers: list[nn.Module]
    if stem == 7:
        layers = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    else:
        layers = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    width = 64
    for stage, channels in enumerate((64, 128, 256, 512)):
        layers += [Residual(width, channels, 1 if stage == 0 else 2), Residual(channels, channels, 1)]
        width = channels
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10)]
    return nn.Sequential(*layers).eval(), torch.rand(examples, 3, 32, 32), torch.randint(0, 10, (examples,))


class Attention(nn.Module):
    """Causal self-attention with one matrix for queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Every position sees itself and those before it."""
        n, t, width = x.shape
        q, k, v = self.c_attn(x).view(n, t, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(mixed.transpose(1, 2).reshape(n, t, width))


class Decoder(nn.Module):
    """Attention and two linear maps around a GELU, each after a norm and added to what came."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Two residuals."""
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Gpt(nn.Module):
    """A decoder like GPT-2's, of nn.Linear; the table of the tokens is the output layer as well."""

    def __init__(self, vocabulary: int, width: int, depth: int, heads: int, context: int) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.h = nn.ModuleList(Decoder(width, heads) for _ in range(depth))
        self.ln_f = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        self.lm_head.weight = self.wte.weight
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores of the next token at every position."""
        places = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape)
        x = self.wte(tokens) + self.wpe(places)
        for block in self.h:
            x = block(x)
        scores: Tensor = self.lm_head(self.ln_f(x))
        return scores


def gpt(vocabulary: int, examples: int = 4, length: int = 128) -> tuple[nn.Module, Tensor, Tensor]:
    """nanoGPT's small network: six layers, 384 wide, six heads; random tokens."""
    torch.manual_seed(0)
    model = Gpt(vocabulary, 384, 6, 6, length)
    return model, torch.randint(0, vocabulary, (examples, length)), torch.randint(0, vocabulary, (examples, length))


def gpt2_small(examples: int = 16, length: int = 64) -> tuple[nn.Module, Tensor, Tensor]:
    """A network of GPT-2 small's size, 124 million parameters."""
    torch.manual_seed(0)
    model = Gpt(50257, 768, 12, 12, 1024)
    return model, torch.randint(0, 50257, (examples, length)), torch.randint(0, 50257, (examples, length))
