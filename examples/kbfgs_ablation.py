"""K-BFGS with its two improvements over K-BFGS-20 on and off (Ren 2022, Table 3.8): training loss after equal epochs.

    python examples/kbfgs_ablation.py                                    # the digits' autoencoder, in about a minute
    python examples/kbfgs_ablation.py --problem curves-autoencoder       # the paper's network, on drawn curves
    python examples/kbfgs_ablation.py --quick                            # one epoch, one setting: to see that it runs

Improvement 1 is D_P D_LM in place of double damping, improvement 2 the Hessian action of the batch's A in place of the
averaged one. Every variant has its best of one grid of rates and dampings, as in the paper.
"""

from __future__ import annotations

import argparse
import math
import time
from itertools import product
from typing import NamedTuple

import torch

from curvlab.optim import create
from curvlab.problems.batches import batches
from curvlab.problems.problem import Problem
from curvlab.problems.registry import problem
from curvlab.training.evaluation import evaluate

RATES, DAMPINGS = (0.01, 0.03, 0.1), (0.1, 0.3, 1.0)
OLD_DAMPING, OLD_MOMENT = {"pair_damping": "double"}, {"moment": "averaged"}
VARIANTS = {
    "K-BFGS": ("yes", "yes", "kbfgs", {}),
    "K-BFGS (#1 off)": ("no", "yes", "kbfgs", OLD_DAMPING),
    "K-BFGS (#2 off)": ("yes", "no", "kbfgs", OLD_MOMENT),
    "K-BFGS-20": ("no", "no", "kbfgs-20", {}),
}


class Outcome(NamedTuple):
    """Training loss (infinite where it diverged) and CPU seconds of one run, and what it was run with."""

    loss: float
    seconds: float
    lr: float
    damping: float


def run(chosen: Problem, optimizer: str, settings: dict[str, object], arguments: argparse.Namespace) -> Outcome:
    """Train once; a mean over the seeds."""
    losses, start = [], time.process_time()
    for seed in range(arguments.seeds):
        split, model = chosen.load(seed, arguments.data), chosen.build(seed)
        made = create(optimizer, model, likelihood=chosen.likelihood, **settings)

        def loss(x: torch.Tensor, y: torch.Tensor, model: torch.nn.Module = model) -> torch.Tensor:
            return chosen.loss(model(x), y)

        made.warm_start(batches(split.train, chosen.batch_size, 0, seed, last="keep"), loss)
        for epoch in range(arguments.epochs):
            for x, y in batches(split.train, chosen.batch_size, epoch, seed, last="keep"):
                made.step(lambda x=x, y=y: loss(x, y))
        losses.append(evaluate(model, chosen, split.train, chosen.batch_size)["loss"])
    mean = sum(losses) / len(losses)
    seconds = (time.process_time() - start) / arguments.seeds
    return Outcome(
        mean if math.isfinite(mean) else math.inf, seconds, float(str(settings["lr"])), made.defaults["damping"]
    )


def main(given: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problem", default="digits-autoencoder")
    parser.add_argument("--data", help="where the problem's data is, if not where the problem looks for it")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="one epoch with one setting")
    arguments = parser.parse_args(given)
    torch.set_num_threads(1)
    grid = list(product(RATES, DAMPINGS))
    if arguments.quick:
        arguments.epochs, grid = 1, [(0.03, 0.3)]
    chosen = problem(arguments.problem)
    print(f"{chosen.name}, {arguments.epochs} epochs, batches of {chosen.batch_size}, {arguments.seeds} seed(s)\n")
    print("| name | improvement 1 | improvement 2 | training loss | lr, damping | CPU seconds |")
    print("|---|---|---|---|---|---|")
    for name, (first, second, optimizer, settings) in VARIANTS.items():
        # Chapter 2 averages the gradient with 1 − β = 0.1: ten times the rate is the same step.
        rate = 10 if optimizer == "kbfgs-20" else 1
        tried = [
            run(chosen, optimizer, {**settings, "lr": rate * lr, "damping": damping}, arguments) for lr, damping in grid
        ]
        best = min(tried)
        numbers = f"{best.loss:.2f} | {best.lr:g}, {best.damping:g} | {best.seconds:.1f}"
        print(f"| {name} | {first} | {second} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
