"""Races for people: tables that fit a terminal, sparklines, and figures that can be printed."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from rich.console import Console

from curvlab.comparison.race import profile_of
from curvlab.comparison.race_curve import curve
from curvlab.comparison.race_results import Entrant, ProblemRace, Races
from curvlab.comparison.race_run import RaceRun
from curvlab.document.section import Document
from curvlab.reports.plots import draw, picture
from curvlab.reports.race_figures import profile_figure, race_figure, race_figures
from curvlab.reports.races import race_sections
from curvlab.reports.sparkline import sparkline
from curvlab.reports.terminal import print_document

CONDITIONS = {
    "problem": "p",
    "data": "d",
    "likelihood": "categorical",
    "train_examples": 1300,
    "test_examples": 10,
    "batch_size": 100,
    "budget": {"epochs": 3},
    "target": "train.loss<0.3",
    "fresh_process": True,
}


def run(seed, losses, step=0.1, **values):
    """A run that takes `step` seconds an epoch."""
    count = len(losses)
    reached = next((i * step for i, loss in enumerate(losses) if loss is not None and loss < 0.3), None)
    times = tuple(i * step for i in range(count))
    given = {
        "loss": tuple(losses),
        "test_loss": tuple(losses),
        "steps": tuple(range(0, 10 * count, 10)),
        "epochs": tuple(range(count)),
        "train_seconds": times,
        "seconds": {"train": times[-1], "warm_start": step / 4, "evaluation": 0.02, "saving": 0.001},
        "time_to_target": reached,
        "epochs_to_target": None if reached is None else reached / step,
        "peak_memory": 3 * 10**8,
        "memory_before": 2 * 10**8,
        "state_bytes": 2048,
        **values,
    }
    return RaceRun(seed, **given)


def raced(problem="p"):
    good = Entrant("kfac", {}, (run(0, [2.0, 0.5, 0.2, 0.1]), run(1, [2.2, 0.6, 0.4, 0.2])))
    half = Entrant("sgd", {}, (run(0, [2.0, 1.0, 0.6, 0.29]), run(1, [2.2, 900.0], diverged=True, reason="too far")))
    none = Entrant("sgd", {}, (RaceRun(0, failed="its process\x1b died"), RaceRun(1, failed="again")))
    entrants = {"kfac": good, "half": half, "none-of-a-very-long-name-that-nobody-would-give": none}
    return ProblemRace(problem, {**CONDITIONS, "problem": problem}, entrants)


def races(*problems):
    found = tuple(map(raced, problems))
    return Races(found, (0, 1), {}, profile_of(found))


def printed(found, width=100):
    stream = io.StringIO()
    document = Document("races", tuple(race_sections(found)), dict)
    print_document(Console(file=stream, width=width, color_system=None), document)
    return stream.getvalue()


def test_the_tables_fit_and_say_what_happened():
    text = printed(races("p"))
    assert max(map(len, text.splitlines())) <= 100
    assert "Race on p: 1,300 examples, batches of 100, 3 epochs, seeds 0, 1, target train.loss<0.3" in text
    rows = {line.split()[0]: line for line in reversed(text.splitlines()) if line.strip()}
    assert "0.250 (0.200–0.300)" in rows["kfac"]
    assert "2/2" in rows["kfac"]
    assert "∞ (0.300–∞)" in rows["half"]
    assert "1/2" in rows["half"]
    (failed,) = [line for line in text.splitlines() if line.startswith("none") and "missed" in line]
    assert "failed" in failed
    assert "0/2" in failed
    assert "half, seed 1: diverged: too far" in text
    assert r"its process\x1b died" in text


def test_each_optimizer_has_a_sparkline_on_one_scale():
    text = printed(races("p"))
    row = next(line for line in text.splitlines() if line.startswith("kfac"))
    bars = row.split()[1]
    assert bars[0] == "█"
    assert bars[-1] == "▁"
    assert len(bars) == 4


def test_one_seed_and_no_target_leave_their_columns_out():
    only = Entrant("kfac", {}, (run(0, [2.0, 0.5]),))
    race = ProblemRace("p", {**CONDITIONS, "target": None, "budget": {"seconds": 2.0}}, {"kfac": only})
    text = printed(Races((race,), (0,), {}, None))
    assert "to target" not in text
    assert "median" not in text
    assert "2 training seconds, seed 0" in text


def test_several_problems_end_with_the_profile():
    text = printed(races("p", "q"))
    assert "Over 2 problems" in text
    assert "vs kfac" not in text, "a table that does not fit is left to the JSON"
    short = Races(
        tuple(
            replace(race, entrants={n[:4]: one for n, one in race.entrants.items()}) for race in races("p", "q").races
        ),
        (0, 1),
        {},
        None,
    )
    text = printed(replace(short, profile=profile_of(short.races)))
    assert "vs kfac" in text
    assert max(map(len, text.splitlines())) <= 100


def test_sparklines():
    assert sparkline([100.0, 10.0, 1.0], 1.0, 100.0) == "█▅▁"
    assert sparkline([0.0, 0.5, 1.0], 0.0, 1.0) == "▁▅█"
    assert sparkline([1.0, None, float("inf")], 1.0, 2.0) == "▁××"
    assert sparkline([5.0, 1000.0, 0.001], 1.0, 10.0)[1:] == "█▁", "what lies outside is at the end"
    assert sparkline([1.0, 1.0], 1.0, 1.0) == "▁▁"
    long = sparkline([2.0**-i for i in range(100)], 2.0**-99, 1.0, width=10)
    assert len(long) == 10
    assert (long[0], long[-1]) == ("█", "▁")


def test_a_curve_takes_the_median_and_counts_what_ended_early_as_infinite():
    points = curve(raced().entrants["half"])
    assert [point.epoch for point in points] == [0, 1, 2, 3]
    assert points[0].loss.median == pytest.approx(2.1)
    assert [point.loss.median for point in points[2:]] == [None, None]
    assert [point.loss.min for point in points[2:]] == [0.6, 0.29]
    assert points[1].seconds == pytest.approx(0.1)


def test_a_curve_goes_as_far_as_all_that_held_out():
    slow, fast = run(0, [2.0, 1.0, 0.5], step=0.2), run(1, [2.0, 1.0, 0.5, 0.25, 0.1])
    assert [point.epoch for point in curve(Entrant("sgd", {}, (slow, fast)))] == [0, 1, 2]
    lost = [run(seed, [2.0, 900.0][: 1 + seed], diverged=True) for seed in (0, 1)]
    assert [point.epoch for point in curve(Entrant("sgd", {}, tuple(lost)))] == [0, 1]
    assert curve(Entrant("sgd", {}, (RaceRun(0, failed="no"),))) == ()


def test_figures_are_written_twice_the_same(tmp_path):
    names = ["race-a-problem.png", "race-a-problem.svg"]
    for folder in ("one", "two"):
        paths = draw(race_figures(races("a/problem")), tmp_path / folder)
        assert [path.name for path in paths] == names
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert ET.parse(tmp_path / "one" / names[1]).getroot().tag.endswith("svg")


def test_several_problems_have_a_figure_more(tmp_path):
    found = races("p", "q")
    paths = draw(race_figures(replace(found, races=())), tmp_path)
    assert [path.name for path in paths] == ["performance-profile.png", "performance-profile.svg"]


def test_a_figure_is_labelled():
    left, right = picture(race_figure(raced(), 2)).axes
    assert (left.get_xlabel(), right.get_xlabel()) == ("epoch", "training seconds, warm start included")
    assert left.get_ylabel() == "training loss (categorical)"
    assert left.get_yscale() == "log"
    labels = [text.get_text() for text in right.get_legend().get_texts()]
    assert labels[:2] == ["kfac", "half (diverged in 1 of 2)"]
    assert labels[-1] == "target 0.3"
    assert left.get_ylim()[1] < 10, "an explosion leaves the picture"
    line = left.get_lines()[0]
    assert list(line.get_xdata()) == [0, 1, 2, 3]
    assert list(line.get_ydata()) == pytest.approx([2.1, 0.55, 0.3, 0.15])
    (axes,) = picture(profile_figure(races("p", "q").profile)).axes
    assert "share of the 2 problems" in axes.get_ylabel()


def test_a_race_that_nobody_finished_can_be_shown(tmp_path):
    none = Entrant("sgd", {}, (RaceRun(0, failed="it died"),))
    found = Races((ProblemRace("p", CONDITIONS, {"sgd": none}),), (0,), {}, None)
    assert "sgd, seed 0: failed: it died" in printed(found)
    assert len(draw(race_figures(found), tmp_path)) == 2
