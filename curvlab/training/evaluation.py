"""Evaluation: 1/N Σ_n ℓ(f(x_n), y_n) and the metrics over a whole part of the data; nothing else changes."""

from __future__ import annotations

import torch
from torch import nn

from curvlab.data.dataset import Dataset
from curvlab.errors import DataError
from curvlab.problems.problem import Problem


def evaluate(model: nn.Module, problem: Problem, dataset: Dataset, size: int) -> dict[str, float]:
    """{"loss": …, metric: …}, in eval mode and without gradients, in batches of `size`; one read from the device.

    Every module's mode and the random generators are left as they were.
    """
    if dataset.y is None:
        raise DataError(f"{dataset.source} has no targets", "nothing can be evaluated on it")
    modes = {module: module.training for module in model.modules()}
    functions = [problem.loss, *problem.metrics.values()]
    precision = torch.float32 if dataset.x.device.type == "mps" else torch.float64
    totals = torch.zeros(len(functions), dtype=precision, device=dataset.x.device)
    used = [dataset.x.device] if dataset.x.device.type == "cuda" else []
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=used):
            for start in range(0, len(dataset), size):
                x, y = dataset.x[start : start + size], dataset.y[start : start + size]
                # In double precision, so that 95 of 100 is not below 0.95.
                z, y = model(x).to(precision), y.to(precision) if y.is_floating_point() else y
                totals += torch.stack([function(z, y) for function in functions]) * len(x)
    finally:
        for module, mode in modes.items():
            module.training = mode
    names = ["loss", *problem.metrics]
    return dict(zip(names, (totals / len(dataset)).tolist(), strict=True))
