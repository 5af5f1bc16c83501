"""Training curves as PNG and SVG: loss against epochs, and against seconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from benchmarks.training_curves import Curve

# Okabe and Ito's colours, told apart by people with any colour vision; dashes for paper without colours.
STYLES = [
    ("#000000", "-"),
    ("#0072B2", "--"),
    ("#D55E00", "-"),
    ("#009E73", "-."),
    ("#CC79A7", "--"),
    ("#E69F00", ":"),
    ("#56B4E9", "-"),
]


def plot(curves: Sequence[Curve], target: float | None, title: str, path: Path) -> None:
    """Draw `path` with the suffixes .png and .svg; seeds of one label share its style.

    Args:
        curves: the lines.
        target: a horizontal line; None for none.
        title: of the figure.
        path: without suffix.
    """
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    labels = list(dict.fromkeys(curve.label for curve in curves))
    left, right = figure.subplots(1, 2, sharey=True)
    for curve in curves:
        colour, dashes = STYLES[labels.index(curve.label) % len(STYLES)]
        label = curve.label if curve is next(c for c in curves if c.label == curve.label) else None
        losses = [point.train_loss for point in curve.points]
        for axes, places in ((left, [p.epoch for p in curve.points]), (right, [p.seconds for p in curve.points])):
            axes.plot(places, losses, dashes, color=colour, label=label, linewidth=1.6)
    for axes, what in ((left, "epochs"), (right, "training seconds, warm start included")):
        if target is not None:
            axes.axhline(target, color="#777777", linewidth=0.8, label=f"target {target:.4g}")
        axes.set_xlabel(what)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(LogFormatter(labelOnlyBase=False))
        axes.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.5)))
        axes.grid(alpha=0.3, which="both")
    left.set_ylabel("training loss")
    right.legend()
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path.with_suffix(".png"), dpi=150)
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
