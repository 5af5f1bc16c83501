"""A step of LNB beside one of Adam: a small transformer and U-Net as in its paper, convolutions, wide layers.

The paper's ratios, on a GPU: 1.48 for its vision transformer and 2.3 for its U-Net.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.timing import alternate
from curvlab.optim import create
from curvlab.problems.problem import Problem
from curvlab.problems.registry import problem

NAMES = ("digits-vit", "shapes-unet", "digits-cnn9", "digits-wide-mlp")
BLOCK = 5
LR = 1e-7


def contenders(chosen: Problem) -> dict[str, Callable[[], None]]:
    """Blocks of steps on one batch; the weights hardly move. Adam, the first, is the unit."""
    train = chosen.load().train
    x, y = train.x[: chosen.batch_size], train.y
    assert y is not None
    y = y[: chosen.batch_size]

    def steps(name: str) -> Callable[[], None]:
        model = chosen.build(0)
        optimizer = create(name, model, lr=LR)

        def run() -> None:
            for _ in range(BLOCK):
                optimizer.step(lambda: chosen.loss(model(x), y))

        return run

    model = chosen.build(0)
    parameters = list(model.parameters())

    def gradients() -> None:
        for _ in range(BLOCK):
            torch.autograd.grad(chosen.loss(model(x), y), parameters)

    return {"Adam": steps("adam"), "LNB": steps("lnb"), "the gradient alone": gradients}


def measure(rounds: int) -> None:
    """Time all four problems, and print a row for each."""
    print("\n### A step of LNB, two CG iterations\n")
    print("| problem | batch | gradient alone, ms | Adam, ms | LNB, ms | LNB / Adam | min–max |")
    print("|---|---|---|---|---|---|---|")
    for name in NAMES:
        chosen = problem(name)
        adam, lnb, gradient = alternate(contenders(chosen), rounds)
        times = (f"{row.seconds / BLOCK * 1e3:.2f}" for row in (gradient, adam, lnb))
        low, high = lnb.spread
        print(f"| `{name}` | {chosen.batch_size} | {' | '.join(times)} | {lnb.ratio:.2f} | {low:.2f}–{high:.2f} |")
