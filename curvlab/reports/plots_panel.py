"""One panel of a picture: lines, bars, a heat map, or histograms one behind the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from curvlab.document.figure import Axis, Bars, Curve, Figure, HeatMap, Histogram, Panel
from curvlab.document.numbers import short
from curvlab.reports.plots_page import Colour, by_depth, kind_style, safe, safe_names, safe_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture

BAND = 0.18
"""Opacity of a range around a line."""
OVERLAP = 2.5
"""How far a histogram reaches into those behind it, in steps between them."""
REFERENCE = "#555555"
CROWDED = 8
"""Names on a horizontal axis beyond which they are turned."""
TICK = 20
"""Letters of a name on an axis."""


def draw_panel(panel: Panel, picture: Picture, area: Axes, figure: Figure) -> None:
    """Everything of `panel` in `area`, in the style that `figure` asks for."""
    count = 1 + max((curve.style for one in figure.panels for curve in one.curves), default=0)
    colours = by_depth(count) if figure.order == "depth" else []
    labels = safe_names([*(one.label for one in panel.curves), *(one.label for one in panel.bars)])
    for curve in panel.curves:
        _curve(area, curve, colours, labels[curve.label])
    for place, bars in enumerate(panel.bars):
        _bars(area, bars, place, len(panel.bars), labels[bars.label])
    for level in panel.levels:
        label = safe(level.label) if level.label else None
        area.axhline(level.value, color=REFERENCE, linewidth=0.9, linestyle=(0, (1, 1)), label=label)
    if panel.heat_map is not None:
        _heat_map(picture, area, panel.heat_map)
    elif panel.histograms:
        _histograms(area, panel.histograms)
    else:
        area.grid(alpha=0.3, linewidth=0.6, axis="y" if panel.bars and len(panel.x.ticks or ()) else "both")
    if panel.title:
        titles = safe_names([one.title for one in figure.panels], int(13.5 * figure.size[0]))
        area.set_title(titles[panel.title], fontsize="medium")
    _axis(area, panel.x, "x", small=panel.heat_map is not None)
    _axis(area, panel.y, "y", small=panel.heat_map is not None)


def _curve(area: Axes, curve: Curve, colours: Sequence[Colour], label: str) -> None:
    colour, dash = (colours[curve.style], "-") if colours else kind_style(curve.style)
    line: dict[str, Any] = {"color": colour, "linestyle": dash}
    if curve.reference:
        line = {"color": REFERENCE, "linestyle": (0, (1, 1))}
    if curve.step:
        line["drawstyle"] = "steps-post"
    values = [float("nan") if value is None else value for value in curve.y]
    width = curve.width or (1.7 if curve.band is not None else 1.4)
    area.plot(curve.x, values, marker=curve.marker, markersize=3, linewidth=width, label=label, **line)
    if curve.band:
        low, high = zip(*curve.band, strict=True)
        area.fill_between(curve.x, low, high, color=line["color"], alpha=BAND, linewidth=0)
    if curve.end is not None:
        area.plot(*curve.end, "X", color=line["color"], markersize=8, clip_on=False, zorder=5)


def _bars(area: Axes, bars: Bars, place: int, series: int, label: str) -> None:
    width = 0.8 if bars.places else 0.8 / series
    places = bars.places or [i + (place + 0.5) * width - 0.4 for i in range(len(bars.values))]
    hatched = bars.hatched or (False,) * len(bars.values)
    known = [(x, value, mark) for x, value, mark in zip(places, bars.values, hatched, strict=True) if value is not None]
    colour, _ = kind_style(bars.style)
    boxes = area.bar([x for x, _, _ in known], [value for _, value, _ in known], width, color=colour, label=label)
    for box, (_, _, marked) in zip(boxes, known, strict=True):
        box.set(hatch="//" if marked else "", edgecolor="white")


def _heat_map(picture: Picture, area: Axes, heat_map: HeatMap) -> None:
    limit, cell = heat_map.limit, heat_map.cell
    image = area.imshow(heat_map.values, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    picture.colorbar(image, ax=area, extend="both", label=heat_map.label)
    for edge in range(cell, len(heat_map.values), cell) if cell else ():
        area.axhline(edge - 0.5, color="black", linewidth=0.6)
        area.axvline(edge - 0.5, color="black", linewidth=0.6)


def _histograms(area: Axes, histograms: Sequence[Histogram]) -> None:
    """The first at the back."""
    for place, (one, colour) in enumerate(zip(histograms, by_depth(len(histograms)), strict=True)):
        base, most = float(len(histograms) - 1 - place), max(one.counts) or 1.0
        heights = [base + OVERLAP * number / most for number in one.counts]
        area.fill_between(one.places, heights, base, color=colour, alpha=0.75, zorder=place, linewidth=0)
        area.plot(one.places, heights, color="black", linewidth=0.5, zorder=place)
    labels = safe_names([one.label for one in histograms])
    area.set_yticks(range(len(histograms)), [labels[one.label] for one in reversed(histograms)], fontsize="x-small")
    area.locator_params(axis="x", nbins=5)


def _axis(area: Axes, axis: Axis, which: str, small: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    side, label = getattr(area, f"{which}axis"), axis.label
    set_scale, set_limits, set_ticks = (getattr(area, f"set_{which}{what}") for what in ("scale", "lim", "ticks"))
    if axis.scale == "log2":
        set_scale("log", base=2)
        side.set_major_formatter(lambda value, _: short(value))
    elif axis.scale == "log":
        set_scale("log")
    if axis.limits is not None:
        set_limits(*axis.limits)
    if axis.whole:
        side.set_major_locator(MaxNLocator(integer=True))
    if axis.ticks is not None:
        names, left_out = safe_ticks([name for _, name in axis.ticks], TICK)
        label = " ".join(part for part in (label, f"({left_out})" if left_out else "") if part)
        turned = {"rotation": 90} if which == "x" and (small or len(names) > CROWDED) else {}
        set_ticks([place for place, _ in axis.ticks], names, **turned, **({"fontsize": "x-small"} if small else {}))
    if label:
        side.set_label_text(label)
