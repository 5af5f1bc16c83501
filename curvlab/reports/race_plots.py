"""Figures of races: the loss against epochs and against training seconds with the range over seeds; the profile."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from curvlab.reports.numbers import count, short
from curvlab.reports.plots_figure import COLOURS, panels, safe, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from curvlab.comparison.performance_profile import PerformanceProfile
    from curvlab.comparison.race_curve import CurvePoint
    from curvlab.comparison.race_results import ProblemRace, Races

DASHES = ("-", "--", "-.", ":")
"""With the colours, so that lines are told apart on paper without colours as well, and beyond eight of them."""
BAND = 0.18
"""Opacity of the range over seeds."""
OVER_START = 3.0
"""Losses of so many times the first still belong into the picture."""
_LIMIT = re.compile(r"train\.loss\s*<=?\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)")


def plot_races(races: Races, folder: Path) -> tuple[Path, ...]:
    """`race-PROBLEM.png` and `.svg` for each, and `performance-profile` over several; returns their paths.

    Raises:
        CurvlabError: they cannot be written.
    """
    paths = [
        path
        for race in races.races
        for path in save_figure(race_figure(race, len(races.seeds)), folder, f"race-{_stem(race.problem)}")
    ]
    if races.profile is not None:
        paths += save_figure(profile_figure(races.profile), folder, "performance-profile")
    return tuple(paths)


def race_figure(race: ProblemRace, seeds: int) -> Figure:
    """Lines are medians over seeds, bands the range; a cross is where most runs had diverged."""
    from matplotlib.ticker import MaxNLocator

    from curvlab.comparison.race_curve import curve

    figure, (left, right) = panels(2, 5.6, 4.4)
    curves = {label: curve(entrant) for label, entrant in race.entrants.items()}
    low, high = _frame(curves.values())
    for place, (label, found) in enumerate(curves.items()):
        points = [point for point in found if point.loss.median is not None]
        lines = [[high if value is None else value for value in values] for values in _edges(points)]
        colour, dash = _style(place)
        lost = sum(run.lost for run in race.entrants[label].runs)
        for axes, across in ((left, [p.epoch for p in points]), (right, [p.seconds for p in points])):
            axes.plot(across, lines[1], dash, color=colour, linewidth=1.7, label=_label(race, label))
            if seeds > 1:
                axes.fill_between(across, lines[0], lines[2], color=colour, alpha=BAND, linewidth=0)
            if points and 2 * lost > seeds:
                axes.plot(across[-1], min(lines[1][-1], high), "X", color=colour, markersize=8, clip_on=False, zorder=5)
    for axes, what in ((left, "epoch"), (right, "training seconds, warm start included")):
        axes.set_xlabel(what)
        axes.grid(alpha=0.3, which="both", linewidth=0.6)
        if low < high:
            axes.set_yscale("log" if low > 0 else "linear")
            axes.set_ylim(low, high)
        limit = _LIMIT.fullmatch((race.conditions["target"] or "").strip())
        if limit:
            text = f"target {limit[1]}"
            axes.axhline(float(limit[1]), color="#555555", linewidth=0.9, linestyle=(0, (1, 1)), label=text)
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.set_ylabel(f"training loss ({race.conditions['likelihood']})")
    right.legend(fontsize="small")
    figure.suptitle(_title(race, seeds), fontsize="medium")
    return figure


def profile_figure(profile: PerformanceProfile) -> Figure:
    """ρ(τ): share of the problems that were solved within τ times the best time, on logarithmic τ."""
    figure, (axes,) = panels(1, 6.4, 4.4)
    end = max(4.0, 1.1 * profile.tau[-1])
    for place, (label, rho) in enumerate(profile.rho.items()):
        colour, dash = _style(place)
        width = 1.4 + 2.4 * (1 - place / len(profile.rho))  # lines on top of each other all show
        axes.step(
            [*profile.tau, end], [*rho, rho[-1]], dash, where="post", color=colour, linewidth=width, label=safe(label)
        )
    axes.set_xscale("log", base=2)
    axes.set_xlim(1, end)
    axes.set_ylim(-0.03, 1.03)
    axes.xaxis.set_major_formatter(lambda value, _: short(value))
    axes.set_xlabel("τ: time to target over the best time")
    axes.set_ylabel(f"share of the {len(profile.penalty)} problems solved within τ")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure


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
        return safe(label)
    how = "diverged" if any(run.diverged for run in runs) else "failed"
    return f"{safe(label)} ({how})" if len(runs) == 1 else f"{safe(label)} ({how} in {lost} of {len(runs)})"


def _title(race: ProblemRace, seeds: int) -> str:
    shown = "one seed" if seeds == 1 else f"median and range over {seeds} seeds"
    facts = race.conditions
    return f"{safe(race.problem)}: {count(facts['train_examples'])} examples, batches of {facts['batch_size']}, {shown}"


def _style(place: int) -> tuple[str, str]:
    return COLOURS[place % len(COLOURS)], DASHES[(place + place // len(COLOURS)) % len(DASHES)]


def _stem(name: str) -> str:
    return re.sub(r"[^\w.-]", "-", name, flags=re.ASCII)
