"""Figure: the data of a picture. Lines, bars, matrices and histograms as numbers; colours and files are a writer's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Number = float | None
"""None is a gap in a line, and no bar."""

Scale = Literal["linear", "log", "log2"]


@dataclass(frozen=True)
class Axis:
    """One axis of a panel.

    Attributes:
        label: what it measures, with its unit.
        scale: "log2" is logarithmic with plain numbers at powers of two.
        limits: (low, high); None for what the data needs.
        ticks: (place, text) pairs that replace the numbers; None for numbers, () for an axis without any.
        whole: whether only whole numbers make sense.
    """

    label: str = ""
    scale: Scale = "linear"
    limits: tuple[float, float] | None = None
    ticks: tuple[tuple[float, str], ...] | None = None
    whole: bool = False


@dataclass(frozen=True)
class Curve:
    """A line through points.

    Attributes:
        label: for the legend.
        x: places along the horizontal axis.
        y: values, None for gaps.
        style: its number among the things that the figure compares; a writer gives each a colour, and a dash for paper
            without colours.
        band: (low, high) per point: the range around the line; None for none.
        marker: "" | "o" | "s".
        step: whether a value holds until the next.
        end: a cross at this point (a run that was lost there); None for none.
        reference: whether it is what the others are compared with.
        width: in points; None for the writer's own.
    """

    label: str
    x: tuple[float, ...]
    y: tuple[Number, ...]
    style: int = 0
    band: tuple[tuple[float, float], ...] | None = None
    marker: str = ""
    step: bool = False
    end: tuple[float, float] | None = None
    reference: bool = False
    width: float | None = None


@dataclass(frozen=True)
class Bars:
    """Bars beside those of other series at the same places.

    Attributes:
        label: of the series.
        values: one per place 0, 1, …
        hatched: which of them are marked.
        style: as in `Curve`.
        places: where they stand; empty for 0, 1, …, side by side with the other series.
    """

    label: str
    values: tuple[Number, ...]
    hatched: tuple[bool, ...] = ()
    style: int = 0
    places: tuple[float, ...] = ()


@dataclass(frozen=True)
class HeatMap:
    """A matrix by colour, from −`limit` over 0 to `limit`.

    Attributes:
        values: rows.
        limit: beyond it a colour tells no more.
        cell: rows and columns that belong together are this many; 0 for none.
        label: what the colours mean.
    """

    values: tuple[tuple[float, ...], ...]
    limit: float
    cell: int = 0
    label: str = ""


@dataclass(frozen=True)
class Histogram:
    """How often values are near each of `places`, one of several that are drawn one behind the other."""

    label: str
    places: tuple[float, ...]
    counts: tuple[float, ...]


@dataclass(frozen=True)
class Level:
    """A horizontal line: a value to compare with; no label keeps it out of the legend."""

    value: float
    label: str = ""


@dataclass(frozen=True)
class Panel:
    """One pair of axes with what is drawn in it."""

    title: str = ""
    x: Axis = field(default_factory=Axis)
    y: Axis = field(default_factory=Axis)
    curves: tuple[Curve, ...] = ()
    bars: tuple[Bars, ...] = ()
    heat_map: HeatMap | None = None
    histograms: tuple[Histogram, ...] = ()
    levels: tuple[Level, ...] = ()


Order = Literal["kinds", "depth"]
LegendPlace = Literal["none", "first", "last", "each", "below"]


@dataclass(frozen=True)
class Figure:
    """A picture of one or several panels.

    Attributes:
        name: of its files, without an ending.
        panels: in rows of at most four.
        title: above all panels; empty for none.
        size: width and height of one panel in inches.
        order: whether styles are "kinds" without an order or layers by their "depth".
        legend: the panel whose legend names the curves, or "below" all panels.
        shared: whether all panels have one vertical axis.
    """

    name: str
    panels: tuple[Panel, ...]
    title: str = ""
    size: tuple[float, float] = (5.2, 4.2)
    order: Order = "kinds"
    legend: LegendPlace = "none"
    shared: bool = False


MOST_PANELS = 16
"""Things with a panel of their own; a title says how many more there are."""


def worst_places(numbers: Sequence[Sequence[Number]], most: int) -> list[int]:
    """The places of the `most` largest numbers, in their own order; the largest of several series counts."""
    peaks = [max((value for value in values if value is not None), default=float("-inf")) for values in numbers]
    worst = sorted(range(len(peaks)), key=lambda place: peaks[place], reverse=True)
    return sorted(worst[:most])


def worst_of(shown: int, total: int, things: str) -> str:
    """ " (the worst 40 of 199 layers)" where not all are shown, else nothing."""
    return f" (the worst {shown} of {total} {things})" if total > shown else ""


def first_of(shown: int, total: int, things: str = "") -> str:
    """ " (the first 16 of 40 things)" where not all are shown, else nothing."""
    return f" (the first {shown} of {total}{' ' * bool(things)}{things})" if total > shown else ""
