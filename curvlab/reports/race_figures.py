"""Pictures of races: the loss against epochs and against training seconds with the range over seeds; the profile."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from curvlab.document.figure import Axis, Curve, Figure, Level, Panel
from curvlab.document.numbers import count

if TYPE_CHECKING:
    from curvlab.comparison.performance_profile import PerformanceProfile
    from curvlab.comparison.race_curve import CurvePoint
    from curvlab.comparison.race_results import ProblemRace, Races

OVER_START = 3.0
"""Losses of so many times the first still belong into the picture."""
_LIMIT = re.compile(r"train\.loss\s*<=?\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)")


def race_figures(races: Races) -> Iterator[Figure]:
    """`race-PROBLEM` for each problem, and `performance-profile` over several."""
    for race in races.races:
        yield race_figure(race, len(races.seeds))
    if races.profile is not None:
        yield profile_figure(races.profile)


def race_figure(race: ProblemRace, seeds: int) -> Figure:
    """Lines are medians over seeds, bands the range; a cross is where most runs had diverged."""
    from curvlab.comparison.race_curve import curve

    curves = {label: curve(entrant) for label, entrant in race.entrants.items()}
    low, high = _frame(curves.values())
    epochs: list[Curve] = []
    seconds: list[Curve] = []
    for place, (label, found) in enumerate(curves.items()):
        points = [point for point in found if point.loss.median is not None]
        edges = [tuple(high if value is None else value for value in values) for values in _edges(points)]
        band = tuple(zip(edges[0], edges[2], strict=True)) if seeds > 1 else None
        lost = 2 * sum(run.lost for run in race.entrants[label].runs) > seeds
        for drawn, across in ((epochs, [p.epoch for p in points]), (seconds, [p.seconds for p in points])):
            end = (across[-1], min(edges[1][-1], high)) if points and lost else None
            name = _label(race, label)
            drawn.append(Curve(name, tuple(across), edges[1], place, band, end=end, width=1.7))
    limit = _LIMIT.fullmatch((race.conditions["target"] or "").strip())
    levels = (Level(float(limit[1]), f"target {limit[1]}"),) if limit else ()
    limits, scale = ((low, high), "log" if low > 0 else "linear") if low < high else (None, "linear")
    loss = Axis(f"training loss ({race.conditions['likelihood']})", "log" if scale == "log" else "linear", limits)
    panels = (
        Panel("", Axis("epoch", whole=True), loss, tuple(epochs), levels=levels),
        Panel(
            "",
            Axis("training seconds, warm start included"),
            Axis("", loss.scale, limits),
            tuple(seconds),
            levels=levels,
        ),
    )
    return Figure(f"race-{_stem(race.problem)}", panels, _title(race, seeds), (5.6, 4.4), legend="last")


def profile_figure(profile: PerformanceProfile) -> Figure:
    """ρ(τ): share of the problems that were solved within τ times the best time, on logarithmic τ."""
    end = max(4.0, 1.1 * profile.tau[-1])
    curves = tuple(
        Curve(
            label,
            (*profile.tau, end),
            (*rho, rho[-1]),
            place,
            step=True,
            width=1.4 + 2.4 * (1 - place / len(profile.rho)),  # lines on top of each other all show
        )
        for place, (label, rho) in enumerate(profile.rho.items())
    )
    across = Axis("τ: time to target over the best time", "log2", (1.0, end))
    up = Axis(f"share of the {len(profile.penalty)} problems solved within τ", limits=(-0.03, 1.03))
    return Figure("performance-profile", (Panel("", across, up, curves),), size=(6.4, 4.4), legend="last")


def _edges(points: Sequence[CurvePoint]) -> tuple[list[float | None], list[float | None], list[float | None]]:
    """Smallest, median and largest loss at each point."""
    losses = [point.loss for point in points]
    return [one.min for one in losses], [one.median for one in losses], [one.max for one in losses]


def _frame(curves: Iterable[Sequence[CurvePoint]]) -> tuple[float, float]:
    """From below the smallest loss to above the largest that is not far above the start: an explosion leaves it."""
    curves = [curve for curve in curves if curve]
    known = [value for curve in curves for edge in _edges(curve) for value in edge if value is not None]
    start = max((curve[0].loss.max for curve in curves if curve[0].loss.max is not None), default=0.0)
    within = [value for value in known if value <= OVER_START * start]
    if not within:
        return 0.0, 0.0
    low, high = min(within), max(within)
    return (low / 1.4, high * 1.4) if low > 0 else (low - 0.05 * (high - low), high + 0.05 * (high - low))


def _label(race: ProblemRace, label: str) -> str:
    runs = race.entrants[label].runs
    lost = sum(run.lost for run in runs)
    if not lost:
        return label
    how = "diverged" if any(run.diverged for run in runs) else "failed"
    return f"{label} ({how})" if len(runs) == 1 else f"{label} ({how} in {lost} of {len(runs)})"


def _title(race: ProblemRace, seeds: int) -> str:
    shown = "one seed" if seeds == 1 else f"median and range over {seeds} seeds"
    facts = race.conditions
    return f"{race.problem}: {count(facts['train_examples'])} examples, batches of {facts['batch_size']}, {shown}"


def _stem(name: str) -> str:
    return re.sub(r"[^\w.-]", "-", name, flags=re.ASCII)
