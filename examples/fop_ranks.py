"""Does a learned low-rank preconditioner help? FOP of rank k against SGD with momentum (fop Figure 2, on digits).

    python examples/fop_ranks.py            # under a minute on one core; prints a table

A network of four layers of 100 units, 64-100-100-100-100-10 with ReLU, on the embedded 8x8 digits: 1,500 examples in
batches of 100, the same batches and the same initial weights for every row of a column.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import nn

from curvlab.optim import create
from curvlab.optim.core import Optimizer
from curvlab.problems.initialisation import glorot
from curvlab.problems.networks import mlp
from curvlab.problems.registry import problem

BATCH = 100


def train(optimizer: Optimizer, model: nn.Module, x: torch.Tensor, y: torch.Tensor, epochs: int, seed: int) -> float:
    """The mean loss over the training set after so many epochs."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(BATCH):
            optimizer.step(lambda rows=rows: nn.functional.cross_entropy(model(x[rows]), y[rows]))
    with torch.no_grad():
        return nn.functional.cross_entropy(model(x), y).item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lr", type=float, nargs="+", default=[0.003, 0.01, 0.03, 0.1])
    parser.add_argument("--hyper-lr", type=float, default=1e-4)
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    digits = problem("digits-linear").load().train
    x, y = digits.x, digits.y
    assert y is not None
    learning = {"hyper_lr": arguments.hyper_lr}
    rows: list[tuple[str, dict[str, Any]]] = [("sgd", {})]
    rows += [(f"fop, k = {k}", {"form": "low-rank", "rank": k, **learning}) for k in (1, 2, 4, 8, 16)]
    rows += [("fop, full", {"form": "full", **learning})]
    print(f"training loss after {arguments.epochs} epochs, momentum 0.9, mean of {arguments.seeds} seeds")
    print("".join(["optimizer".ljust(14), *(f"lr {lr:g}".rjust(12) for lr in arguments.lr)]))
    for name, settings in rows:
        cells = []
        for lr in arguments.lr:
            losses = []
            for seed in range(arguments.seeds):
                torch.manual_seed(seed)
                model = mlp([64, 100, 100, 100, 100, 10])
                glorot(model)
                optimizer = create(name.split(",")[0], model, lr=lr, **settings)
                losses.append(train(optimizer, model, x, y, arguments.epochs, seed))
            cells.append(f"{sum(losses) / len(losses):.3e}".rjust(12))
        print("".join([name.ljust(14), *cells]), flush=True)


if __name__ == "__main__":
    main()
