"""Figures of directions: the cosine with the baseline's per layer along the way (ren Figure 4.1), and by damping."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from curvlab.reports.direction_tables import damping_of
from curvlab.reports.plots_figure import COLOURS, MOST_PANELS, panels, safe, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from curvlab.comparison.results import Comparison, Directions

DASHES = ("-", "--", "-.", ":")


def plot_directions(comparison: Comparison, folder: Path) -> tuple[Path, ...]:
    """`cosine` and, with a sweep, `cosine-by-damping`, as PNG and SVG; returns their paths.

    Raises:
        CurvlabError: they cannot be written.
    """
    paths = save_figure(cosine_figure(comparison), folder, "cosine")
    if any(one.damping for one in comparison.optimizers.values()):
        paths += save_figure(damping_figure(comparison), folder, "cosine-by-damping")
    return paths


def cosine_figure(comparison: Comparison) -> Figure:
    """A panel per layer: curves over steps; at the weights of a model, one mark per optimizer."""
    found = comparison.optimizers
    layers = next(iter(found.values())).layers[:MOST_PANELS]
    figure, axes = panels(len(layers), 3.3 if len(layers) > 1 else 5.5, 3.0 if len(layers) > 1 else 4.0)
    for layer, area in zip(layers, axes, strict=True):
        for place, (label, one) in enumerate(found.items()):
            colour, dash = _style(place)
            label = f"{label}{f' ({damping})' if (damping := damping_of(one)) else ''}"
            values = [float("nan") if v is None else v for v in one.cosine[layer]]
            if len(values) > 1:
                area.plot(comparison.measured, values, dash, color=colour, linewidth=1.3, label=safe(label))
            else:
                area.bar(place, values[0], color=colour, label=safe(label), width=0.8)
        _frame(area, safe(layer))
        if len(comparison.measured) > 1:
            area.set_xlabel("step of the baseline")
        else:
            area.set_xticks([])
    axes[0].set_ylabel(f"cosine with {_baseline(comparison)}")
    _finish(figure, axes[0], comparison, len(next(iter(found.values())).layers) - len(layers))
    return figure


def damping_figure(comparison: Comparison) -> Figure:
    """Mean cosine over layers against the optimizer's own damping, the baseline's staying as it is."""
    figure, (area,) = panels(1, 7.5, 4.6)
    for place, (label, one) in enumerate(comparison.optimizers.items()):
        if one.damping:
            _sweep_line(area, one, _style(place), safe(label))
    if comparison.reference is not None and comparison.reference.damping:
        _sweep_line(area, comparison.reference, ("#555555", (0, (1, 1))), f"{comparison.baseline} itself")
    area.set_xscale("log")
    _frame(area, "mean over layers")
    area.set_xlabel("damping")
    area.set_ylabel(f"cosine with {_baseline(comparison)}")
    _finish(figure, area, comparison, 0)
    return figure


def _sweep_line(area: Axes, one: Directions, style: tuple[str, object], label: str) -> None:
    colour, dash = style
    means = [float("nan") if point["mean"] is None else point["mean"] for point in one.damping]
    values = [point["value"] for point in one.damping]
    area.plot(values, means, color=colour, linestyle=dash, marker="o", markersize=3, linewidth=1.3, label=label)


def _style(place: int) -> tuple[str, str]:
    """Colours, and dashes for paper without them."""
    return COLOURS[place % len(COLOURS)], DASHES[place % len(DASHES)]


def _frame(area: Axes, title: str) -> None:
    area.set_title(title, fontsize="medium")
    low, _ = area.get_ylim()
    area.set_ylim(min(0.0, low), 1.02)
    area.grid(alpha=0.3, linewidth=0.6)


def _baseline(comparison: Comparison) -> str:
    damping = "" if comparison.reference is None else damping_of(comparison.reference)
    return f"{comparison.baseline} ({damping})" if damping else str(comparison.baseline)


def _finish(figure: Figure, first: Axes, comparison: Comparison, more: int) -> None:
    handles, labels = first.get_legend_handles_labels()
    width = figure.get_figwidth()
    columns = min(len(labels), max(2, int(width / 1.6)))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize="small")
    averages = "warm start" if comparison.warm_start else "no warm start"
    rest = f", {more} more layers not shown" if more else ""
    data = str(comparison.data.get("source", "")).partition(" (")[0]
    where = f"{comparison.problem} on {data}, batches of {comparison.data.get('batch_size')}, seed {comparison.seed}"
    where += f", {averages}, T2 = {comparison.interval}" if len(comparison.measured) > 1 else ""
    title = f"directions beside {_baseline(comparison)}: {where}{rest}"
    figure.suptitle(safe(title, int(13.5 * width)), fontsize="medium" if width > 8 else "small")
