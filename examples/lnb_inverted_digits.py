"""Adam and LNB on digits and on inverted digits, 1 − x (lnb 5.2): how much does a shift of the pixels cost?

    python examples/lnb_inverted_digits.py                       # 784-100-100-10, under a minute on one core
    python examples/lnb_inverted_digits.py --width 800           # the paper's network, some minutes
    python examples/lnb_inverted_digits.py --quick               # to see that it runs

LNB whitens the inputs of every layer, so that a shift changes nothing but where the same random weights begin. Adam's
rate is the best of the grid for each kind of pixels apart, by mean test accuracy. There are 297 test digits: one of
them is 0.34 points, so that accuracies are means over seeds and over the last epochs.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch

from curvlab.optim import create
from curvlab.problems.initialisation import glorot_normal
from curvlab.problems.networks import mlp
from curvlab.problems.problem import Problem
from curvlab.problems.registry import problem

ADAM_RATES = (1e-4, 3e-4, 1e-3, 3e-3)
PROBLEMS = ("digits-wide-mlp", "digits-inverted-wide-mlp")
LAST = 3


def accuracy(chosen: Problem, width: int, optimizer: str, settings: dict[str, Any], epochs: int, seed: int) -> float:
    """Test accuracy in percent, the mean over the last epochs."""
    split = chosen.load()
    x, y, test_x, test_y = split.train.x, split.train.y, split.test.x, split.test.y
    assert y is not None
    assert test_y is not None
    torch.manual_seed(seed)
    model = mlp((784, width, width, 10), "Tanh")
    glorot_normal(model)
    made = create(optimizer, model, **settings)
    order, found = torch.Generator().manual_seed(seed), []
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=order).split(chosen.batch_size):
            made.step(lambda rows=rows: chosen.loss(model(x[rows]), y[rows]))
        with torch.no_grad():
            found.append((model(test_x).argmax(1) == test_y).double().mean().item())
    return 100 * sum(found[-LAST:]) / len(found[-LAST:])


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=100, help="of both hidden layers")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--lr", type=float, default=0.03, help="of LNB")
    parser.add_argument("--ridge", type=float, default=0.01)
    parser.add_argument("--quick", action="store_true", help="one epoch of a small network, one seed")
    chosen = parser.parse_args(arguments)
    if chosen.quick:
        chosen.width, chosen.epochs, chosen.seeds = 20, 1, 1

    torch.set_num_threads(1)
    runs: list[tuple[str, str, dict[str, Any]]] = [
        (f"adam, lr {rate:g}", "adam", {"lr": rate}) for rate in (ADAM_RATES[2:] if chosen.quick else ADAM_RATES)
    ]
    runs.append((f"lnb, lr {chosen.lr:g}, ridge {chosen.ridge:g}", "lnb", {"lr": chosen.lr, "ridge": chosen.ridge}))
    epochs = f"test accuracy after {chosen.epochs} epochs, mean of {chosen.seeds} seeds"
    print(f"784-{chosen.width}-{chosen.width}-10, {epochs} and the last {min(LAST, chosen.epochs)} epochs")
    print(f"{'optimizer':<26}{'pixels':>9}{'inverted':>10}{'difference':>12}")
    table: dict[str, list[float]] = {}
    for title, optimizer, settings in runs:
        means = []
        for name in PROBLEMS:
            found = [
                accuracy(problem(name), chosen.width, optimizer, settings, chosen.epochs, seed)
                for seed in range(chosen.seeds)
            ]
            means.append(sum(found) / len(found))
        table[title] = means
        print(f"{title:<26}{means[0]:>9.2f}{means[1]:>10.2f}{means[0] - means[1]:>12.2f}", flush=True)
    best = [max(means[i] for title, means in table.items() if title.startswith("adam")) for i in (0, 1)]
    print(f"{'best of adam':<26}{best[0]:>9.2f}{best[1]:>10.2f}{best[0] - best[1]:>12.2f}")


if __name__ == "__main__":
    main()
