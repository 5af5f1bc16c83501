"""`python -m benchmarks [--rounds N]`: every benchmark, printed as Markdown."""

from __future__ import annotations

import argparse
import time
import warnings

import torch

from benchmarks import factors, fop, kbfgs_steps, lnb, memory, optimizer_memory, spectra, steps, timing
from benchmarks.networks import mlp, resnet18

parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
parser.add_argument("--rounds", type=int, default=15, help="measurements of each contender (default 15)")
PARTS = ["mlp", "resnet", "spectra", "memory", "steps", "optimizer-memory", "fop", "lnb", "kbfgs"]
parser.add_argument("--only", choices=PARTS, action="append", help="repeatable")
parser.add_argument("--threads", type=int, default=torch.get_num_threads())
parser.add_argument("--cpu-time", action="store_true", help="one thread, time spent computing: for busy machines")
arguments = parser.parse_args()

warnings.filterwarnings("ignore")  # the peers' own deprecations
if arguments.cpu_time:
    arguments.threads, timing.CLOCK = 1, time.process_time
torch.set_num_threads(arguments.threads)
wanted = arguments.only or PARTS
clock = "CPU time" if arguments.cpu_time else "wall time"
print(f"torch {torch.__version__}, {arguments.threads} threads, {clock}, medians of {arguments.rounds} rounds in turn")
if "mlp" in wanted:
    factors.measure("MLP 784-1024-512-256-128-64-10", mlp(), arguments.rounds)
if "resnet" in wanted:
    factors.measure("ResNet-18, 7×7 stem, 32×32", resnet18(7), max(3, arguments.rounds // 3))
    factors.measure("ResNet-18, 3×3 stem, 32×32", resnet18(3), max(3, arguments.rounds // 5))
if "spectra" in wanted:
    spectra.measure(max(3, arguments.rounds // 3))
if "memory" in wanted:
    memory.measure()
if "steps" in wanted:
    steps.measure(max(3, arguments.rounds // 3))
if "optimizer-memory" in wanted:
    optimizer_memory.measure()
if "fop" in wanted:
    fop.measure(arguments.rounds)
if "lnb" in wanted:
    lnb.measure(arguments.rounds)
if "kbfgs" in wanted:
    kbfgs_steps.measure(max(3, arguments.rounds // 3))
