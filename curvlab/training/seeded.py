"""`seeded`: seeded generators and the wanted number of threads, both put back after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from curvlab.device import pick_device
from curvlab.training.settings import TrainingSettings


@contextmanager
def seeded(settings: TrainingSettings) -> Iterator[None]:
    """Within it everything drawn follows `settings.seed`, and torch has `settings.threads` threads."""
    device, threads = pick_device(settings.device), torch.get_num_threads()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if device.type == "cuda" else []):
        torch.manual_seed(settings.seed)
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
