"""Condition numbers of every layer's input features before and after whitening, or of the weights, as bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from curvlab.reports.plots_figure import COLOURS, panels, safe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from curvlab.analyses.results import Analysis

MOST = 40
"""Layers that are drawn: the first ones."""
NORMALISED = {
    "identity": "as they are",
    "centered": "mean removed",
    "diagonal": "scaled to 1",
    "lnb": "LNB's normalisation",
}
Bar = tuple[float | None, bool]
"""A number, and whether it is over the range of a singular matrix."""


def plot_condition(analysis: Analysis) -> Figure | None:
    """Four bars per layer, of features; without data one, of its weight; None where neither is known.

    A singular matrix is hatched and shown over its range.
    """
    layers = [layer for layer in analysis.layers if layer.moments is not None]
    bars: dict[str, list[Bar]] = {}
    for field, title in NORMALISED.items() if layers else ():
        tables = [(m.condition_number, m.condition_number_nonzero) for layer in layers if (m := layer.moments)]
        bars[title] = [_bar(getattr(whole, field), getattr(part, field)) for whole, part in tables]
    if not layers:
        layers = [layer for layer in analysis.layers if layer.weights and layer.weights.condition_number]
        bars = {"weight": [(layer.weights.condition_number, False) for layer in layers if layer.weights]}
    if all(value is None for row in bars.values() for value, _ in row):
        return None
    what = "input features, before and after normalising" if len(bars) > 1 else "weights"
    more = f" (the first {MOST} of {len(layers)} layers)" if len(layers) > MOST else ""
    return _draw([layer.name for layer in layers[:MOST]], bars, f"Conditioning of the {what}{more}")


def _bar(whole: float | None, over_range: float | None) -> Bar:
    return (over_range, True) if whole is None else (whole, False)


def _draw(names: Sequence[str], bars: dict[str, list[Bar]], title: str) -> Figure:
    figure, (axes,) = panels(1, max(7.0, 0.3 * len(names) * len(bars) ** 0.5 + 3), 4.5)
    width = 0.8 / len(bars)
    for place, (label, values) in enumerate(bars.items()):
        drawn = [(i, value, singular) for i, (value, singular) in enumerate(values[: len(names)]) if value is not None]
        boxes = axes.bar(
            [i + (place + 0.5) * width - 0.4 for i, _, _ in drawn],
            [value for _, value, _ in drawn],
            width,
            color=COLOURS[place],
            label=label,
        )
        for box, (_, _, singular) in zip(boxes, drawn, strict=True):
            box.set(hatch="//" if singular else "", edgecolor="white")
    axes.set_xticks(range(len(names)), [safe(name, 20) for name in names], rotation=90 if len(names) > 8 else 0)
    axes.set(yscale="log", ylabel="condition number (hatched: singular, over the range)", title=title)
    axes.grid(alpha=0.3, axis="y")
    if len(bars) > 1:
        axes.legend(fontsize="small")
    return figure
