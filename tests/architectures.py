"""Architectures of published files, written out from their papers and tensor shapes, to be given by `--architecture
architectures:…`."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


class ONet(nn.Module):
    """The third network of MTCNN (Zhang et al. 2016): 48×48×3 → face or not, box, five landmarks; one output tensor
    of 16."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 64, 128)
        for i, (inputs, outputs) in enumerate(pairwise(widths), start=1):
            setattr(self, f"conv{i}", nn.Conv2d(inputs, outputs, 2 if i == 4 else 3))
            setattr(self, f"prelu{i}", nn.PReLU(outputs))
        self.pools = nn.ModuleList([nn.MaxPool2d(3, 2, ceil_mode=True), nn.MaxPool2d(3, 2, ceil_mode=True)])
        self.pools.append(nn.MaxPool2d(2, 2, ceil_mode=True))
        self.dense5, self.prelu5 = nn.Linear(1152, 256), nn.PReLU(256)
        self.dense6_1, self.dense6_2, self.dense6_3 = nn.Linear(256, 2), nn.Linear(256, 4), nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        for i in range(1, 5):
            x = getattr(self, f"prelu{i}")(getattr(self, f"conv{i}")(x))
            if i <= len(self.pools):
                x = self.pools[i - 1](x)
        x = self.prelu5(self.dense5(x.permute(0, 3, 2, 1).flatten(1)))
        return torch.cat([self.dense6_1(x), self.dense6_2(x), self.dense6_3(x)], dim=1)


class VoiceEncoder(nn.Module):
    """The speaker encoder of Resemblyzer (Wan et al. 2018): frames of 40 mel bands → an embedding of 256."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(40, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)
        self.similarity_weight, self.similarity_bias = (nn.Parameter(torch.zeros(1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(x)
        return torch.relu(self.linear(hidden[-1]))


class Crepe(nn.Module):
    """The "tiny" pitch tracker of CREPE (Kim et al. 2018): 1024 samples → 360 pitch bins."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 128, 16, 16, 16, 32, 64)
        for i, (inputs, outputs) in enumerate(pairwise(widths), start=1):
            kernel, stride = ((512, 1), (4, 1)) if i == 1 else ((64, 1), (1, 1))
            setattr(self, f"conv{i}", nn.Conv2d(inputs, outputs, kernel, stride))
            setattr(self, f"conv{i}_BN", nn.BatchNorm2d(outputs, eps=0.001, momentum=0.0))
        self.classifier = nn.Linear(256, 360)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, None, :, None]
        for i in range(1, 7):
            sides = (254, 254) if i == 1 else (31, 32)
            x = nn.functional.pad(x, (0, 0, *sides))
            x = getattr(self, f"conv{i}_BN")(torch.relu(getattr(self, f"conv{i}")(x)))
            x = nn.functional.max_pool2d(x, (2, 1), (2, 1))
        return self.classifier(x.permute(0, 2, 1, 3).flatten(1))
