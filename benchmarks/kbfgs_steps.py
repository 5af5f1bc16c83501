"""A training step of K-BFGS beside Adam's and K-FAC's, and what its state holds (Ren 2022, section 3.7.1, Table 3.1).

A period of 20 steps is timed in the steady state, so that a step's share of one update (T = 20) or renewal is in it.
The CNN is `digits-cnn` (two 3×3 convolutions of 8 and 16 channels, batch 100), the MLP Ren's MNIST autoencoder (1000).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from benchmarks.optimizer_memory import size
from benchmarks.timing import alternate
from curvlab.optim import create
from curvlab.optim.core import Optimizer
from curvlab.problems.problem import Problem
from curvlab.problems.registry import problem

PERIOD = 20
CONTENDERS: Mapping[str, tuple[str, dict[str, float]]] = {
    "Adam": ("adam", {}),
    "SGD-m": ("sgd", {}),
    "K-BFGS, T = 20": ("kbfgs", {"interval": 20}),
    "K-BFGS(L), T = 20": ("kbfgsl", {"interval": 20}),
    "K-FAC, T1 = 10, T2 = 20": ("kfac", {"statistics_interval": 10, "inverse_interval": 20}),
    "K-BFGS": ("kbfgs", {}),
    "K-BFGS(L)": ("kbfgsl", {}),
    "K-BFGS-20": ("kbfgs-20", {}),
    "K-BFGS(L)-20": ("kbfgsl-20", {}),
    "K-FAC, T1 = 1, T2 = 20": ("kfac", {"statistics_interval": 1, "inverse_interval": 20}),
}


def period(chosen: Problem, label: str) -> tuple[Optimizer, Callable[[], None]]:
    """An optimizer that hardly moves, and twenty of its steps on random inputs."""
    name, settings = CONTENDERS[label]
    torch.manual_seed(0)
    model, x = chosen.build(0), torch.rand(chosen.batch_size, *chosen.input_shape)
    y = x if chosen.targets == "inputs" else torch.randint(0, 10, (len(x),))
    optimizer = create(name, model, likelihood=chosen.likelihood, lr=1e-7, **settings)

    def run() -> None:
        for _ in range(PERIOD):
            optimizer.step(lambda: chosen.loss(model(x), y))

    return optimizer, run


def table_3_1(optimizer: Optimizer, label: str) -> int:
    """Numbers of Ren 2022, Table 3.1 beyond the gradient's average: H_A and H_G, or p pairs; for Adam the squares."""
    if label == "Adam":
        return sum(p.numel() for p in optimizer.parameters())
    total = 0
    for unit in getattr(optimizer, "units", []):
        groups, o, j = unit.shape
        total += groups * (j * j + (2 * 100 * o if "(L)" in label else o * o))
    return total


def measure(rounds: int) -> None:
    """Print both tables."""
    for name in ("digits-cnn", "mnist-autoencoder"):
        chosen = problem(name)
        made = {label: period(chosen, label) for label in CONTENDERS}
        rows = alternate({label: run for label, (_, run) in made.items()}, rounds)
        print(f"\n### A step on {name} (batch {chosen.batch_size:,})\n")
        print("| step | ms | × Adam | min–max | state beyond SGD-m, KiB | Ren 2022, Table 3.1, KiB | times that |")
        print("|---|---|---|---|---|---|---|")
        momentum = size(made["SGD-m"][0].state_dict())
        for row in rows:
            optimizer = made[row.name][0]
            beyond, known = size(optimizer.state_dict()) - momentum, 4 * table_3_1(optimizer, row.name)
            times = f"{beyond / known:.2f}" if known else ""
            low, high = row.spread
            cells = (row.name, f"{row.seconds / PERIOD * 1e3:.2f}", f"{row.ratio:.2f}", f"{low:.2f}–{high:.2f}")
            print(f"| {' | '.join(cells)} | {beyond / 1024:.0f} | {known / 1024:.0f} | {times} |", flush=True)
