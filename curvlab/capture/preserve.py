"""A look at a model that leaves no trace: its buffers and the random state are afterwards as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Batch norm's running statistics and their count, and the generators of the CPU and the model's GPUs."""
    buffers = [(b, b.clone()) for b in model.buffers()]
    with torch.random.fork_rng(sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})):
        yield
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)
