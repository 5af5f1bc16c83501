"""Does a learned preconditioner forgive a badly chosen learning rate or momentum? (fop Figure 4a, on digits-cnn)

    python examples/fop_robustness.py            # under a minute on one core; prints two tables

Test accuracy after a few epochs for every pair of learning rate and momentum, with and without FOP: the same initial
weights and batches in both. FOP's matrices are learned by Adam with 5e-4, as in the figure. "+" marks where FOP is
better by more than the larger of the two standard deviations, "-" where it is worse by as much.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch

from curvlab.optim import create
from curvlab.problems.batches import batches
from curvlab.problems.problem import Problem
from curvlab.problems.registry import problem
from curvlab.problems.split import Split

RATES = [0.01, 0.03, 0.1, 0.3, 1.0]
MOMENTA = [0.0, 0.5, 0.9, 0.95, 0.99]


def accuracy(chosen: Problem, split: Split, epochs: int, seed: int, optimizer: str, **settings: Any) -> float:
    """Of the test set, in per cent; what diverged answers at random or not at all."""
    model = chosen.build(seed)
    stepper = create(optimizer, model, **settings)
    for epoch in range(epochs):
        for x, y in batches(split.train, chosen.batch_size, epoch, seed, last="keep"):
            stepper.step(lambda x=x, y=y: chosen.loss(model(x), y))
    with torch.no_grad():
        return 100 * chosen.metrics["accuracy"](model(split.test.x), split.test.y).item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--hyper-lr", type=float, default=5e-4)
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    chosen = problem("digits-cnn")
    splits = [chosen.load(seed) for seed in range(arguments.seeds)]
    contenders: dict[str, dict[str, Any]] = {"sgd": {}, "fop": {"hyper_lr": arguments.hyper_lr}}
    found: dict[str, dict[tuple[float, float], torch.Tensor]] = {}
    for name, settings in contenders.items():
        found[name] = {}
        print(f"{name}: test accuracy in % after {arguments.epochs} epochs, mean ± std of {arguments.seeds} seeds")
        print("".join(["momentum".ljust(10), *(f"lr {lr:g}  ".rjust(15) for lr in RATES)]).rstrip())
        for momentum in MOMENTA:
            for lr in RATES:
                runs = [
                    accuracy(chosen, split, arguments.epochs, seed, name, lr=lr, momentum=momentum, **settings)
                    for seed, split in enumerate(splits)
                ]
                found[name][momentum, lr] = torch.tensor(runs, dtype=torch.float64)
            cells = [cell(found[name][momentum, lr], found["sgd"][momentum, lr]) for lr in RATES]
            print("".join([f"{momentum:<10g}", *cells]).rstrip(), flush=True)
        print()
    marks = [mark(found["fop"][pair], plain) for pair, plain in found["sgd"].items()]
    print(f"of {len(marks)} settings FOP is better in {marks.count('+')} and worse in {marks.count('-')}")


def cell(runs: torch.Tensor, plain: torch.Tensor) -> str:
    """Mean and standard deviation of the runs, marked where they are not those of the plain optimizer."""
    return f"{runs.mean():.1f} ± {runs.std(correction=0):.1f} {mark(runs, plain)}".rjust(15)


def mark(runs: torch.Tensor, plain: torch.Tensor) -> str:
    """ "+" or "-" where the means differ by more than both standard deviations."""
    difference = (runs.mean() - plain.mean()).item()
    spread = max(runs.std(correction=0).item(), plain.std(correction=0).item())
    return " " if abs(difference) <= spread else "+" if difference > 0 else "-"


if __name__ == "__main__":
    main()
