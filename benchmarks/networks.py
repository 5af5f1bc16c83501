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
