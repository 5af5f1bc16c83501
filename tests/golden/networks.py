"""The networks whose profiles are recorded: small, without a fault of the first generation in them, made by a seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn


class Mean(nn.Module):
    """Mean over one axis."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(self.axis)


class Recurrent(nn.Module):
    """An LSTM in both directions, then a GRU whose last state is classified."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True, bidirectional=True)
        self.gru, self.head = nn.GRU(8, 3, batch_first=True), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(self.lstm(x)[0])[0][:, -1])


class Attention(nn.Module):
    """Self-attention behind an embedding of the features, and a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.attend = nn.Linear(3, 4), nn.MultiheadAttention(4, 2, batch_first=True)
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = self.norm(x + self.attend(x, x, x, need_weights=False)[0])
        return self.head(x.mean(1))


class Tied(nn.Module):
    """The output layer is the embedding table, and one matrix is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix = nn.Embedding(6, 4), nn.Linear(4, 4)
        self.out = nn.Linear(4, 6, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.mix(self.embed(x)))
        return self.out(torch.tanh(self.mix(x)).mean(1))


class Norms(nn.Module):
    """Every normalisation, and activations with parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.batch, self.group = nn.Conv1d(3, 4, 2), nn.BatchNorm1d(4), nn.GroupNorm(2, 4)
        self.act, self.layer, self.rms = nn.PReLU(4), nn.LayerNorm(4), nn.RMSNorm(4)
        self.mix, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.group(self.batch(self.conv(x)))).mean(2)
        return self.head(self.rms(torch.tanh(self.mix(self.layer(x)))))


class Reader(nn.Module):
    """Attention to what is no padding, with an output for every position."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Embedding(11, 5), nn.LayerNorm(5)
        self.key, self.value, self.head = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 4)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.norm(self.embed(input_ids))
        scores = (self.key(x) @ x.mT).masked_fill(attention_mask[:, None] == 0, -torch.inf)
        return self.head((scores.softmax(-1) @ self.value(x)).tanh())


class ByHand(nn.Module):
    """Parameters without a module of their own: added, multiplied, expanded, and used as matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.place = nn.Parameter(torch.randn(1, 1, 3)), nn.Parameter(torch.randn(1, 5, 3))
        self.scale, self.weight = nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(2, 3))
        self.right = nn.Parameter(torch.randn(2, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1) + self.place
        return nn.functional.linear(torch.tanh(x * self.scale).mean(1), self.weight) @ self.right


def linear() -> nn.Module:
    """Perceptron, one layer without a bias."""
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4, bias=False), nn.Tanh(), nn.Linear(4, 3))


def convolutional() -> nn.Module:
    """Padding, stride and dilation, over circles too."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 5, (3, 2), stride=(2, 1), dilation=(1, 2), padding=1, padding_mode="circular"),
        nn.Tanh(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(20, 3),
    )


def grouped() -> nn.Module:
    """Groups, one group per channel, and a transposed convolution in groups."""
    return nn.Sequential(
        nn.Conv2d(4, 6, 3, groups=2, padding="same"),
        nn.Tanh(),
        nn.Conv2d(6, 6, 2, groups=6),
        nn.Tanh(),
        nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, groups=2),
        nn.Tanh(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 3),
    )


def regression() -> nn.Module:
    """Several outputs, each with positions."""
    return nn.Sequential(nn.Conv1d(2, 4, 2), nn.Sigmoid(), nn.Conv1d(4, 3, 2))


def labels() -> nn.Module:
    """Several labels that may hold together."""
    return nn.Sequential(nn.Conv3d(2, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(36, 4))


BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "linear": linear,
    "convolutional": convolutional,
    "grouped": grouped,
    "recurrent": Recurrent,
    "attention": Attention,
    "tied": Tied,
    "norms": Norms,
    "masked": Reader,
    "by-hand": ByHand,
    "regression": regression,
    "labels": labels,
}
"""Name -> what makes the network; importable by `--architecture tests.golden.networks:NAME`."""


def drawn(*shape: int, seed: int) -> Tensor:
    """Normal numbers in float64, the same on every processor: torch's own depend on its vector instructions."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def filled(module: nn.Module, seed: int = 7) -> nn.Module:
    """`module` with drawn weights: 1 + 0.3 r for scales, r / √inputs for matrices, 0.3 r for all others."""
    with torch.no_grad():
        for i, (name, p) in enumerate(module.named_parameters()):
            r = drawn(*p.shape, seed=1000 * seed + i)
            scale = p.dim() == 1 and "bias" not in name
            p.copy_(1 + 0.3 * r if scale else r / p[0].numel() ** 0.5 if p.dim() > 1 else 0.3 * r)
        for part in module.modules():
            if isinstance(part, nn.BatchNorm1d):
                part.running_mean += 0.3  # type: ignore[operator]
                part.running_var += torch.linspace(-0.4, 0.4, part.num_features)  # type: ignore[operator]
    return module


def build(name: str) -> nn.Module:
    """The network of a name with drawn weights; batch norm has met data."""
    return filled(BUILDERS[name]())
