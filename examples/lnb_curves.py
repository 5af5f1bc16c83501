"""LNB against Adam on a small vision transformer and a small U-Net (lnb 5.3, 5.4): loss by epoch and by CPU time.

    python examples/lnb_curves.py                        # prints a table, in about a minute on one core
    python examples/lnb_curves.py --plot out.png         # and draws the curves
    python examples/lnb_curves.py --quick                # one epoch, to see that it runs

Both from the settings of the problem, the same initial weights and batches. The test loss is per pixel for the U-Net.
"""

from __future__ import annotations

import argparse
import time
from math import prod
from pathlib import Path

import torch

from curvlab.optim import create
from curvlab.problems.registry import problem

PROBLEMS = {"digits-vit": "vision transformer on digits", "shapes-unet": "U-Net on shapes"}
OPTIMIZERS = {"adam": ("Adam", "--", "#E69F00"), "lnb": ("LNB", "-", "#009E73")}
Curve = list[tuple[float, float, float]]
"""(seconds, test loss, test accuracy) before training and after every epoch."""


def curve(name: str, optimizer: str, epochs: int, seed: int = 0) -> Curve:
    """Train once."""
    chosen = problem(name)
    split = chosen.load()
    x, y, test_x, test_y = split.train.x, split.train.y, split.test.x, split.test.y
    assert y is not None
    assert test_y is not None
    model = chosen.build(seed)
    made = create(optimizer, model, **chosen.settings[optimizer])
    order, spent, found = torch.Generator().manual_seed(seed), 0.0, []
    for epoch in range(epochs + 1):
        start = time.process_time()
        for rows in torch.randperm(len(x), generator=order).split(chosen.batch_size) if epoch else ():
            made.step(lambda rows=rows: chosen.loss(model(x[rows]), y[rows]))
        spent += time.process_time() - start
        with torch.no_grad():
            z = model(test_x)
            loss = chosen.loss(z, test_y).item() / prod(test_y.shape[1:])
            found.append((spent, loss, 100 * chosen.metrics["accuracy"](z, test_y).item()))
    return found


def draw(curves: dict[str, dict[str, Curve]], out: Path) -> None:
    """Test loss by epoch and by time, a row per problem."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(len(curves), 2, figsize=(11, 4 * len(curves)), layout="constrained", squeeze=False)
    for row, (name, found) in zip(panels, curves.items(), strict=True):
        for optimizer, points in found.items():
            label, line, colour = OPTIMIZERS[optimizer]
            seconds, losses, _ = zip(*points, strict=True)
            row[0].plot(range(len(points)), losses, line, color=colour, label=label)
            row[1].plot(seconds, losses, line, color=colour, label=label)
        for panel, axis in zip(row, ("epoch", "CPU seconds"), strict=True):
            panel.set(title=PROBLEMS[name], xlabel=axis, ylabel="test loss", yscale="log")
            panel.legend()
    figure.savefig(out, dpi=150)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> None:
    """Print a line per epoch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="one epoch")
    parser.add_argument("--plot", type=Path, help="where to draw the curves (.png, .svg, .pdf)")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    curves: dict[str, dict[str, Curve]] = {}
    for name, title in PROBLEMS.items():
        found = {optimizer: curve(name, optimizer, 1 if chosen.quick else chosen.epochs) for optimizer in OPTIMIZERS}
        curves[name] = found
        print(f"{title} ({name}): test loss, accuracy, CPU seconds so far")
        print(f"{'epoch':>5}" + "".join(f"{label:>28}" for label, _, _ in OPTIMIZERS.values()))
        for epoch, points in enumerate(zip(*found.values(), strict=True)):
            cells = (f"{loss:.4f}  {accuracy:.1f} %  {seconds:.1f} s" for seconds, loss, accuracy in points)
            print(f"{epoch:>5}" + "".join(f"{cell:>28}" for cell in cells), flush=True)
    if chosen.plot is not None:
        draw(curves, chosen.plot)
        print(f"drawn in {chosen.plot}")


if __name__ == "__main__":
    main()
