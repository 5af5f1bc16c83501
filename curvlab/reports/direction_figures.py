"""Pictures of directions: the cosine with the baseline's per layer along the way (Ren 2022, Figure 4.1), and by
damping."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from curvlab.document.figure import MOST_PANELS, Axis, Bars, Curve, Figure, Panel
from curvlab.reports.directions import damping_of

if TYPE_CHECKING:
    from curvlab.comparison.results import Comparison, Directions


def direction_figures(comparison: Comparison) -> Iterator[Figure]:
    """`cosine` and, with a sweep, `cosine-by-damping`."""
    if not comparison.optimizers:
        return
    yield cosine_figure(comparison)
    if any(one.damping for one in comparison.optimizers.values()):
        yield damping_figure(comparison)


def cosine_figure(comparison: Comparison) -> Figure:
    """A panel per layer: curves over steps; at the weights of a model, one bar per optimizer."""
    found = comparison.optimizers
    layers = next(iter(found.values())).layers
    shown = layers[:MOST_PANELS]
    panels = tuple(_panel(comparison, layer, first=place == 0) for place, layer in enumerate(shown))
    size = (3.3, 3.0) if len(shown) > 1 else (5.5, 4.0)
    return Figure("cosine", panels, _title(comparison, len(layers) - len(shown)), size, legend="below")


def damping_figure(comparison: Comparison) -> Figure:
    """Mean cosine over layers against the optimizer's own damping, the baseline's staying as it is."""
    curves = [
        _sweep(one, label, place) for place, (label, one) in enumerate(comparison.optimizers.items()) if one.damping
    ]
    reference = comparison.reference
    if reference is not None and reference.damping:
        curves.append(_sweep(reference, f"{comparison.baseline} itself", 0, reference=True))
    values = [value for curve in curves for value in curve.y]
    label = f"cosine with {_baseline(comparison)}"
    panel = Panel("mean over layers", Axis("damping", "log"), Axis(label, limits=_limits(values)), tuple(curves))
    return Figure("cosine-by-damping", (panel,), _title(comparison, 0), (7.5, 4.6), legend="below")


def _panel(comparison: Comparison, layer: str, first: bool) -> Panel:
    curves, bars = [], []
    for place, (label, one) in enumerate(comparison.optimizers.items()):
        damping = damping_of(one)
        label = f"{label} ({damping})" if damping else label
        values = tuple(one.cosine[layer])
        if len(values) > 1:
            curves.append(Curve(label, tuple(map(float, comparison.measured)), values, place, width=1.3))
        else:
            bars.append(Bars(label, values, style=place, places=(float(place),)))
    everything = [value for one in comparison.optimizers.values() for value in one.cosine[layer]]
    along = Axis("step of the baseline") if len(comparison.measured) > 1 else Axis(ticks=())
    what = f"cosine with {_baseline(comparison)}" if first else ""
    return Panel(layer, along, Axis(what, limits=_limits(everything)), tuple(curves), tuple(bars))


def _sweep(one: Directions, label: str, place: int, reference: bool = False) -> Curve:
    values = tuple(float(point["value"]) for point in one.damping)
    means = tuple(point["mean"] for point in one.damping)
    return Curve(label, values, means, place, marker="o", reference=reference, width=1.3)


def _limits(values: list[float | None]) -> tuple[float, float]:
    """From 0, or from below the lowest cosine, to just above 1."""
    low = min((value for value in values if value is not None), default=0.0)
    return (min(0.0, 1.05 * low), 1.02)


def _baseline(comparison: Comparison) -> str:
    damping = "" if comparison.reference is None else damping_of(comparison.reference)
    return f"{comparison.baseline} ({damping})" if damping else str(comparison.baseline)


def _title(comparison: Comparison, more: int) -> str:
    averages = "warm start" if comparison.warm_start else "no warm start"
    rest = f", {more} more layers not shown" if more else ""
    data = str(comparison.data.get("source", "")).partition(" (")[0]
    where = f"{comparison.problem} on {data}, batches of {comparison.data.get('batch_size')}, seed {comparison.seed}"
    where += f", {averages}, T2 = {comparison.interval}" if len(comparison.measured) > 1 else ""
    return f"directions beside {_baseline(comparison)}: {where}{rest}"
