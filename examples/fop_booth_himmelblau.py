"""SGD, Adam and FOP on the functions of Booth and Himmelblau (fop Figure 1): steps to converge, and their paths.

    python examples/fop_booth_himmelblau.py                 # prints a table, in seconds
    python examples/fop_booth_himmelblau.py --plot out.png  # and draws the paths

Gradients without noise. A run has converged when the gradient's norm is below 1e-6. The paper gives no settings.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from curvlab.optim import create

TOLERANCE, LIMIT = 1e-6, 20_000


def booth(x: Tensor, y: Tensor) -> Tensor:
    """(x + 2y − 7)² + (2x + y − 5)²: a bowl conditioned by 9, its minimum at (1, 3)."""
    return (x + 2 * y - 7) ** 2 + (2 * x + y - 5) ** 2


def himmelblau(x: Tensor, y: Tensor) -> Tensor:
    """(x² + y − 11)² + (x + y² − 7)²: four minima of height 0."""
    return (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2


FUNCTIONS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], tuple[float, float]]] = {
    "Booth": (booth, (-8.0, 8.0)),
    "Himmelblau": (himmelblau, (-0.5, -3.5)),
}
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "Booth": {
        "sgd": {"lr": 0.01, "momentum": 0.0},
        "adam": {"lr": 0.01},
        "fop": {"lr": 0.01, "momentum": 0.0, "hyper_lr": 5e-3},
    },
    "Himmelblau": {
        "sgd": {"lr": 0.001, "momentum": 0.0},
        "adam": {"lr": 0.01},
        "fop": {"lr": 0.001, "momentum": 0.0, "hyper_lr": 5e-3},
    },
}
COLOURS = {"sgd": "#0072B2", "adam": "#E69F00", "fop": "#009E73"}
MARKERS = {"sgd": "s", "adam": "^", "fop": "o"}
LINES = {"sgd": "--", "adam": ":", "fop": "-"}
LABELS = {"sgd": "SGD", "adam": "Adam", "fop": "FOP"}


def run(function: str, optimizer: str) -> tuple[list[tuple[float, float]], bool]:
    """Every point of the path, and whether it converged."""
    value, start = FUNCTIONS[function]
    model = nn.Linear(2, 1, bias=False)  # the point is its one row, so that FOP learns a matrix of 2 × 2
    with torch.no_grad():
        model.weight.copy_(torch.tensor([start]))
    made = create(optimizer, model, **SETTINGS[function][optimizer])
    path = [start]
    for _ in range(LIMIT):
        made.zero_grad()
        value(*model.weight[0]).backward()
        assert model.weight.grad is not None
        if model.weight.grad.norm() < TOLERANCE:
            return path, True
        made.step()
        x, y = model.weight[0].tolist()
        path.append((x, y))
    return path, False


def draw(paths: dict[str, dict[str, list[tuple[float, float]]]], out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
    for panel, (function, found) in zip(panels, paths.items(), strict=True):
        points = torch.tensor([point for path in found.values() for point in path])
        low, high = points.amin(0) - 1, points.amax(0) + 1
        xs, ys = torch.linspace(low[0], high[0], 200), torch.linspace(low[1], high[1], 200)
        values = FUNCTIONS[function][0](xs[None, :], ys[:, None])
        panel.contour(xs, ys, values.log1p(), levels=20, colors="0.8", linewidths=0.7)
        for name, path in found.items():
            x, y = zip(*path, strict=True)
            label = f"{LABELS[name]}, {len(path) - 1:,} steps"
            panel.plot(x, y, LINES[name], color=COLOURS[name], linewidth=1.8, label=label)
            panel.plot(x[-1], y[-1], MARKERS[name], color=COLOURS[name], markersize=10, markerfacecolor="none")
        panel.plot(*FUNCTIONS[function][1], "o", color="#D55E00", markersize=9, label="start")
        panel.set(title=function, xlabel="x", ylabel="y")
        panel.legend()
    figure.savefig(out, dpi=150)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plot", type=Path, help="where to draw the paths (.png, .svg, .pdf)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    paths: dict[str, dict[str, list[tuple[float, float]]]] = {}
    print(f"{'function':<12}{'optimizer':<11}{'settings':<44}{'steps':>7}  end")
    for function in FUNCTIONS:
        paths[function] = {}
        for optimizer, settings in SETTINGS[function].items():
            path, converged = run(function, optimizer)
            paths[function][optimizer] = path
            used = ", ".join(f"{key} {value:g}" for key, value in settings.items())
            steps, (x, y) = f"{len(path) - 1:,}" if converged else f">{LIMIT:,}", path[-1]
            print(f"{function:<12}{optimizer:<11}{used:<44}{steps:>7}  ({x:.4f}, {y:.4f})")
    if arguments.plot is not None:
        draw(paths, arguments.plot)
        print(f"drawn in {arguments.plot}")


if __name__ == "__main__":
    main()
