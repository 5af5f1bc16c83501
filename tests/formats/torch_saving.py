"""PyTorch's two formats, and a small network to be saved in them."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import nn

FORMATS = {"torch-zip": True, "torch-legacy": False}


def network() -> nn.Module:
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4), fc=nn.Linear(4, 2)))


def save(content: Any, path: Path, name: str) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=FORMATS[name])
    return path
