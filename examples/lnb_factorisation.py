"""Adam against LNB on a factorisation with κ(A) = 10⁵ (lnb 5.1): ½‖W₂W₁x − Ax‖² after 1,000 full-batch steps.

    python examples/lnb_factorisation.py
    python examples/lnb_factorisation.py --quick    # 20 steps, to see that it runs

Adam's rate is searched over the grid that is printed; LNB solves every neuron exactly (Algorithm 1), and with five CG
iterations in place of the solves. The gradient is that of the whole data, so that neither averages it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import nn

from curvlab.data.linear_map import linear_map
from curvlab.optim import LNB, Adam
from curvlab.optim.core import Optimizer
from curvlab.problems.registry import problem

STEPS = 1000
ADAM_RATES = (1e-3, 1e-2, 3e-2, 1e-1)
LNB_SETTINGS = {"lr": 1e-2, "minimum_norm": 1.0, "ridge": 0.0}


def final_loss(make: Callable[[nn.Module], Optimizer], steps: int = STEPS) -> float:
    """The loss after so many steps, in float64, from the problem's own start."""
    factorisation = problem("factorisation")
    made = linear_map()
    x, y = made.x[:1000], made.y[:1000]
    model = factorisation.build(seed=0).double()
    optimizer = make(model)
    for _ in range(steps):
        optimizer.step(lambda: factorisation.loss(model(x), y))
    with torch.no_grad():
        return factorisation.loss(model(x), y).item()


def table(steps: int = STEPS) -> dict[str, float]:
    """Optimizer and its settings -> final loss."""
    runs: dict[str, Callable[[nn.Module], Optimizer]] = {
        f"adam, lr {rate:g}": lambda model, rate=rate: Adam(model, lr=rate)  # type: ignore[misc]
        for rate in ADAM_RATES
    }
    runs["lnb, exact solves"] = lambda model: LNB(model, online=False, **LNB_SETTINGS)
    runs["lnb, 5 CG iterations"] = lambda model: LNB(model, iterations=5, momentum=0.0, **LNB_SETTINGS)
    losses = {}
    for name, make in runs.items():
        losses[name] = final_loss(make, steps)
        print(f"{name:22} {losses[name]:.2e}", flush=True)
    return losses


def main(arguments: list[str] | None = None) -> None:
    """Print the table, and by how much LNB is below Adam's best."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--quick", action="store_true", help="20 steps")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    losses = table(20 if chosen.quick else chosen.steps)
    best = min(loss for name, loss in losses.items() if name.startswith("adam"))
    for name, loss in losses.items():
        if name.startswith("lnb"):
            print(f"{name}: {best / loss:.1e} times below Adam's best")


if __name__ == "__main__":
    main()
