"""Evaluation: 1/N Σ_n ℓ(f(x_n), y_n) and the metrics over a whole part of the data; nothing else changes."""

from __future__ import annotations

import torch
from torch import nn

from curvlab.capture.preserve import preserve
from curvlab.data.dataset import Dataset
from curvlab.errors import DataError
from curvlab.problems.problem import Problem


def evaluate(model: nn.Module, problem: Problem, dataset: Dataset, size: int) -> dict[str, float]:
    """{"loss": …, metric: …}, in eval mode and without gradients, in batches of `size`; one read from the device.

    Every module's mode, buffers and the random generators are left as they were.
    """
    if dataset.y is None:
        raise DataError(f"{dataset.source} has no targets", "nothing can be evaluated on it")
    functions = [problem.loss, *problem.metrics.values()]
    precision = torch.float32 if dataset.x.device.type == "mps" else torch.float64
    totals = torch.zeros(len(functions), dtype=precision, device=dataset.x.device)
    with preserve(model), torch.no_grad():
        model.eval()
        for start in range(0, len(dataset), size):
            x, y = dataset.x[start : start + size], dataset.y[start : start + size]
            # In double precision, so that 95 of 100 is not below 0.95.
            z, y = model(x).to(precision), y.to(precision) if y.is_floating_point() else y
            totals += torch.stack([function(z, y) for function in functions]) * len(x)
    names = ["loss", *problem.metrics]
    return dict(zip(names, (totals / len(dataset)).tolist(), strict=True))
