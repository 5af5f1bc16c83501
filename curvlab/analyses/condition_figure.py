"""Condition numbers of every layer as bars on a logarithmic axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from curvlab.document.figure import Axis, Bars, Figure, Panel, worst_of, worst_places

MOST = 40
"""Layers that are drawn: the worst ones, in the model's order."""
NAME = "condition-numbers"

Bar = tuple[float | None, bool]
"""A number, and whether it is over the range of a singular matrix."""


def bar(whole: float | None, over_range: float | None) -> Bar:
    """The condition number of the whole matrix where it exists, else over its range."""
    return (over_range, True) if whole is None else (whole, False)


def condition_figure(names: Sequence[str], series: Mapping[str, Sequence[Bar]], what: str) -> Figure | None:
    """Bars beside each other for every layer, one per series; None where no number exists.

    Args:
        names: of the layers.
        series: label -> a bar per layer; a singular matrix is hatched and shown over its range.
        what: the matrices that the numbers are of.
    """
    if all(value is None for bars in series.values() for value, _ in bars):
        return None
    places = worst_places([[row[place][0] for row in series.values()] for place in range(len(names))], MOST)
    shown = [names[place] for place in places]
    bars = tuple(
        Bars(label, tuple(row[place][0] for place in places), tuple(row[place][1] for place in places), style)
        for style, (label, row) in enumerate(series.items())
    )
    panel = Panel(
        f"Conditioning of the {what}{worst_of(len(shown), len(names), 'layers')}",
        Axis(ticks=tuple(enumerate(shown))),
        Axis("condition number (hatched: singular, without the zero eigenvalues)", scale="log"),
        bars=bars,
    )
    width = max(7.0, 0.3 * len(shown) * len(series) ** 0.5 + 3)
    return Figure(NAME, (panel,), size=(width, 4.5), legend="last" if len(series) > 1 else "none")
