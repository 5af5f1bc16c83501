"""`python -m benchmarks [--rounds N]`: what users call, timed against peers, printed as Markdown.

All times are wall times on all threads (`--threads` sets their number), with the time that the process computed beside
them: on a busy machine that one is the steadier, and with `--threads 1` it is the time on one quiet core.
"""

from __future__ import annotations

import argparse
import warnings

import torch

from benchmarks import (
    factors,
    fop,
    kbfgs_steps,
    lnb,
    memory,
    nanogpt,
    optimizer_memory,
    profiles,
    spectra,
    start,
    steps,
    targets,
)
from benchmarks.networks import mlp, resnet18

MLP, RESNET = "MLP 784-1024-512-256-128-64-10", "ResNet-18, {0}×{0} stem, 32×32"
PARTS = [
    "start",
    "mlp",
    "resnet",
    "nanogpt",
    "profile",
    "steps",
    "spectra",
    "memory",
    "optimizer-memory",
    "fop",
    "lnb",
    "kbfgs",
]

parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
parser.add_argument("--rounds", type=int, default=15, help="measurements of each contender (default 15)")
parser.add_argument("--only", choices=PARTS, action="append", help="repeatable")
parser.add_argument("--threads", type=int, default=torch.get_num_threads())
arguments = parser.parse_args()

warnings.filterwarnings("ignore")  # the peers' own deprecations
torch.set_num_threads(arguments.threads)
wanted, rounds = arguments.only or PARTS, arguments.rounds
few = max(3, rounds // 3)
print(f"torch {torch.__version__}, {arguments.threads} threads, medians of {rounds} rounds in turn (fewer of the slow)")
found: list[targets.Target] = []
if "start" in wanted:
    found += start.measure(rounds)
if "mlp" in wanted:
    found += factors.measure(MLP, mlp(), rounds)
if "resnet" in wanted:
    for stem, examples in ((7, 32), (7, 64), (3, 64)):
        found += factors.measure(RESNET.format(stem), resnet18(stem, examples), few if stem == 7 else max(3, few // 2))
if "nanogpt" in wanted:
    found += nanogpt.measure(few)
if "profile" in wanted:
    found += profiles.measure(MLP, mlp(), rounds)
    found += profiles.measure(RESNET.format(7), resnet18(7), few)
if "steps" in wanted:
    found += steps.measure(few)
if "spectra" in wanted:
    spectra.measure(few)
if "memory" in wanted:
    memory.measure()
if "optimizer-memory" in wanted:
    optimizer_memory.measure()
if "fop" in wanted:
    fop.measure(rounds)
if "lnb" in wanted:
    lnb.measure(rounds)
if "kbfgs" in wanted:
    kbfgs_steps.measure(few)
if found:
    targets.show(found)
