"""Networks for graph formats: with every kind of layer, branches, state, fixed sizes, mixed examples, ties."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Mixed(nn.Module):
    """Every kind of layer that is recognised, one of them called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(2, 4, 3, padding=1)
        self.grouped = nn.Conv1d(4, 4, 3, padding="same", groups=2, bias=False)
        self.up = nn.ConvTranspose1d(4, 4, 2, stride=2)
        self.bn = nn.BatchNorm1d(4)
        self.gn = nn.GroupNorm(2, 4)
        self.act = nn.PReLU(4)
        self.ln = nn.LayerNorm(16)
        self.twice = nn.Linear(16, 16)
        self.head = nn.Linear(64, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.gn(self.bn(self.up(self.grouped(self.conv1(x))))))
        x = self.twice(torch.tanh(self.twice(self.ln(x))))
        return self.head(x.flatten(1))


class Branching(nn.Module):
    """Control flow, lists and a loop around one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        found: list[Tensor] = []
        for part in self.parts:
            y = part(x)
            y = y * 0 if bool(y.shape[0] > 100) else torch.relu(y)
            found.append(y)
        steps = 0
        while steps < 2:
            x = torch.tanh(x)
            steps += 1
        return self.head(torch.cat(found, 1)) + x.sum(1, keepdim=True)


class Stateful(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.last = torch.zeros(1)

    def forward(self, x: Tensor) -> Tensor:
        self.last = x.sum(0)
        return self.fc(x)


class Viewed(nn.Module):
    """Exported for two examples, its graph holds the number two."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.view(x.shape[0], 6))


class Mixing(nn.Module):
    """Attention whose reshape holds the number of examples that it was exported for."""

    def __init__(self, examples: int) -> None:
        super().__init__()
        self.examples, self.fc, self.head = examples, nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc(x).reshape(self.examples, -1, 4)
        h = torch.softmax(h @ h.transpose(1, 2), -1) @ h
        return self.head(h.reshape(-1, 5, 4).mean(1))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(torch.tanh(self.embed(ids)).mean(1))
