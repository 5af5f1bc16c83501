"""Evaluation: 1/N Σ_n ℓ(f(x_n), y_n) and the metrics over a whole part of the data; nothing else changes."""

from __future__ import annotations

import torch
from torch import nn

from curvlab.capture.output import answer
from curvlab.capture.preserve import preserve
from curvlab.data.dataset import Dataset
from curvlab.errors import DataError
from curvlab.problems.metrics import PositionMean
from curvlab.problems.problem import Problem


def evaluate(model: nn.Module, problem: Problem, dataset: Dataset, size: int) -> dict[str, float]:
    """{"loss": …, metric: …}, in eval mode and without gradients, in batches of `size`; one read from the device.

    Every module's mode, buffers and the random generators are left as they were.
    """
    if dataset.y is None:
        raise DataError(f"{dataset.source} has no targets", "nothing can be evaluated on it")
    functions = [problem.loss, *problem.metrics.values()]
    per_position = [one for one in functions if isinstance(one, PositionMean)]
    precision = torch.float32 if dataset.x.device.type == "mps" else torch.float64
    totals = torch.zeros(len(functions), dtype=precision, device=dataset.x.device)
    counted = totals.new_zeros(())
    with preserve(model), torch.no_grad():
        model.eval()
        for start in range(0, len(dataset), size):
            rows = slice(start, start + size)
            y = dataset.y[rows]
            # In double precision, so that 95 of 100 is not below 0.95.
            z, y = answer(model, dataset.inputs(rows)).to(precision), y.to(precision) if y.is_floating_point() else y
            totals += torch.stack(
                [one.terms(z, y) if isinstance(one, PositionMean) else one(z, y) * len(y) for one in functions]
            )
            # All of them count the same positions.
            counted += per_position[0].count(y) if per_position else 0
    found = [
        one.of(total, counted) if isinstance(one, PositionMean) else total / len(dataset)
        for one, total in zip(functions, totals, strict=True)
    ]
    return dict(zip(["loss", *problem.metrics], torch.stack(found).tolist(), strict=True))
