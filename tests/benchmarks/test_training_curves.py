"""Training curves of the benchmarks: where they end, and what is in their files."""

from __future__ import annotations

import csv
from pathlib import Path

from benchmarks.training_curves import Contender, Course, Curve, Point, train, write
from curvlab.problems.registry import problem


def course(epochs: int) -> Course:
    digits = problem("digits-mlp")
    return Course(digits, digits.load(0), epochs, 0)


def test_a_curve_ends_at_the_first_epoch_that_meets_the_target() -> None:
    sgd = Contender("SGD-m", "sgd", {"lr": 0.05})
    whole = train(course(3), sgd)
    assert [point.epoch for point in whole.points] == [0, 1, 2, 3]
    target = whole.points[2].train_loss
    stopped = train(course(3), sgd, target)
    assert [p.train_loss for p in stopped.points] == [p.train_loss for p in whole.points[:3]]
    assert whole.reached(target) == whole.points[2]
    assert whole.reached(0.0) is None


def test_the_warm_start_is_on_the_clock_before_the_first_epoch() -> None:
    curve = train(course(0), Contender("Shampoo", "shampoo", {"lr": 0.01, "damping": 0.01}))
    (start,) = curve.points
    assert start.seconds > 0
    assert not curve.diverged


def test_the_file_has_a_row_per_point(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "curves.csv"
    write([Curve("a", 0, (Point(0, 0.0, 2.5, 2.6), Point(1, 1.25, 1.5, 1.6)))], path)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["train_loss"]) for row in rows] == [2.5, 1.5]
    assert [float(row["seconds"]) for row in rows] == [0.0, 1.25]
