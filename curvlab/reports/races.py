"""Races: how far every optimizer came, what it took, and over several problems which is how much faster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from curvlab.document.numbers import ABSENT, INFINITE, count, short, size
from curvlab.document.section import Note, Section
from curvlab.document.table import plain_table
from curvlab.reports.sparkline import LOST, sparkline

if TYPE_CHECKING:
    from curvlab.comparison.performance_profile import PerformanceProfile
    from curvlab.comparison.race_results import Entrant, ProblemRace, Races
    from curvlab.comparison.spread import Spread

SPARK = 12
"""Cells of a sparkline."""
FACTORS = (1, 2, 4)
"""At which a performance profile is told in words."""


def race_sections(races: Races) -> Iterator[Section]:
    """For every problem two tables and what there is to say of single runs; then the profile over all problems."""
    for race in races.races:
        names = list(race.entrants)
        tables = (
            plain_table(names, columns, "optimizer", left=("loss",)) for columns in (_results(race), _costs(race))
        )
        remarks = (Note(remark, tone="aside") for remark in _remarks(race, len(races.seeds)))
        yield Section((*tables, *remarks), _heading(race, races.seeds))
    if races.profile is not None:
        yield _profile(races.profile)


def _heading(race: ProblemRace, seeds: Sequence[int]) -> str:
    facts = race.conditions
    ((unit, amount),) = facts["budget"].items()
    parts = [
        f"{count(facts['train_examples'])} examples",
        f"batches of {facts['batch_size']}",
        f"{short(amount)} {'training seconds' if unit == 'seconds' else unit}",
        f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}",
    ]
    if facts["target"] is not None:
        parts.append(f"target {facts['target']}")
    return f"Race on {race.problem}: {', '.join(parts)}"


def _results(race: ProblemRace) -> Iterator[tuple[str, list[str]]]:
    """Heading and cells of each column: the loss, and when the target was met."""
    from curvlab.comparison.race_curve import curve

    entrants = race.entrants.values()
    curves = [[point.loss.median for point in curve(one)] for one in entrants]
    low, high = scale(race)
    lines = [
        sparkline(points, low, high, SPARK - 1) + (LOST if all(run.lost for run in one.runs) else "")
        for points, one in zip(curves, entrants, strict=True)
    ]
    yield "loss", [f"{line:<{SPARK}}" for line in lines]
    yield "training loss", [_loss(one, one.last_loss) for one in entrants]
    yield "test loss", [short(one.last_test_loss.median) for one in entrants]
    if race.conditions["target"] is not None:
        yield "s to target", ["missed" if one.met == 0 else _ranged(one.time_to_target) for one in entrants]
        yield "epochs", [_or_infinite(one.epochs_to_target.median) if one.met else ABSENT for one in entrants]
        yield "met", [f"{one.met}/{len(one.runs)}" for one in entrants]


def _costs(race: ProblemRace) -> Iterator[tuple[str, list[str]]]:
    entrants = race.entrants.values()
    yield "training s", [_ranged(one.seconds("train")) for one in entrants]
    for heading, name in (("warm start", "warm_start"), ("evaluation", "evaluation"), ("logging", "saving")):
        yield heading, [short(one.seconds(name).median) for one in entrants]
    for heading, name in (("peak memory", "peak_memory"), ("before", "memory_before"), ("state", "state_bytes")):
        found = [one.memory(name).median for one in entrants]
        yield heading, [ABSENT if value is None else size(value) for value in found]


def scale(race: ProblemRace) -> tuple[float, float]:
    """Smallest and largest median loss of all optimizers; above the loss of the start nothing is told apart."""
    from curvlab.comparison.race_curve import curve

    curves = [[point.loss.median for point in curve(one)] for one in race.entrants.values()]
    known = [value for points in curves for value in points if value is not None]
    starts = [points[0] for points in curves if points and points[0] is not None]
    return (min(known), max(starts)) if starts else (0.0, 0.0)


def _remarks(race: ProblemRace, seeds: int) -> Iterator[str]:
    low, high = scale(race)
    over = f", median over {seeds} seeds" if seeds > 1 else ""
    shape = "logarithmic, " if low > 0 else ""
    yield f"loss: of the training set at every evaluation{over}; {shape}from {short(low)} (▁) to {short(high)} (█)"
    if seeds > 1:
        yield f"numbers: median (smallest–largest) over seeds; {INFINITE} stands for runs that diverged or missed"
    if race.conditions["target"] is not None:
        yield "s to target: training seconds, warm start included, evaluation excluded; looked for after each epoch"
    yield "warm start is part of training, evaluation and logging are not; all in seconds"
    if race.conditions["fresh_process"]:
        yield "before: memory of the process with libraries and data, when there was no network and no optimizer yet"
    for label, one in race.entrants.items():
        for run in one.runs:
            if run.failed is not None:
                yield f"{label}, seed {run.seed}: failed: {run.failed}"
            elif run.diverged:
                yield f"{label}, seed {run.seed}: diverged: {run.reason}"


def _profile(profile: PerformanceProfile) -> Section:
    names = list(profile.score)
    columns = [
        ("fastest" if factor == 1 else f"within {factor}×", [f"{100 * profile.share(n, factor):.0f}%" for n in names])
        for factor in FACTORS
    ]
    columns.append(("score", [short(profile.score[name]) for name in names]))
    shares = plain_table(names, columns, "optimizer")
    over = [(f"vs {name}", [_times(profile.speed_up[one][name]) for one in names]) for name in names]
    caption = (
        "vs: geometric mean over the problems that anyone solved of the other's time over one's own; a miss counts as"
        " the longest training time on that problem"
    )
    speed_ups = replace(plain_table(names, over, "optimizer"), cut="never", caption=caption)
    remarks = (
        "fastest, within 2×, within 4×: share of problems solved in at most so many times the best time",
        "score: mean of that share over factors from 1 to 4, as in AlgoPerf",
    )
    title = f"Over {len(profile.penalty)} problems: time to target"
    return Section((shares, speed_ups, *(Note(remark, tone="aside") for remark in remarks)), title)


def _loss(one: Entrant, found: Spread) -> str:
    if found.min is not None:
        return _ranged(found)
    return "diverged" if any(run.diverged for run in one.runs) else "failed"


def _ranged(found: Spread) -> str:
    """`0.11 (0.09–0.13)`, without the range where it is one number."""
    if found.median is None and found.min is None:
        return ABSENT
    if found.min == found.max:
        return short(found.median)
    return f"{_or_infinite(found.median)} ({short(found.min)}–{_or_infinite(found.max)})"


def _or_infinite(value: float | None) -> str:
    return INFINITE if value is None else short(value)


def _times(value: float | None) -> str:
    return ABSENT if value is None else f"{short(value)}×"
