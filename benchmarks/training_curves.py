"""Training curves: the loss over the whole training set at the end of every epoch, and the seconds spent training."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from benchmarks import timing
from curvlab.optim import create
from curvlab.problems.batches import batches
from curvlab.problems.problem import Problem
from curvlab.problems.split import Split
from curvlab.training.evaluation import evaluate


@dataclass(frozen=True)
class Point:
    """After `epoch` epochs: seconds of training, the warm start included and evaluations left out; mean losses."""

    epoch: int
    seconds: float
    train_loss: float
    test_loss: float


@dataclass(frozen=True)
class Curve:
    """One run.

    Attributes:
        label: what was run.
        seed: of weights, order and pseudo-targets.
        points: from epoch 0; they end early at a target, or where the loss is not finite any more.
        diverged: whether they ended for the latter.
    """

    label: str
    seed: int
    points: tuple[Point, ...]
    diverged: bool = False

    def reached(self, target: float) -> Point | None:
        """The first point at or below a training loss."""
        return next((point for point in self.points if point.train_loss <= target), None)


@dataclass(frozen=True)
class Contender:
    """An optimizer with settings, and the name of its line."""

    label: str
    optimizer: str
    settings: Mapping[str, float | str]


@dataclass(frozen=True)
class Course:
    """What everyone runs on.

    Attributes:
        problem: with its network.
        split: its data.
        epochs: at most.
        seed: of weights, order and pseudo-targets.
        seconds: of training at most, the warm start included; a course ends with the epoch in which they are over.
        every: epochs between evaluations.
    """

    problem: Problem
    split: Split
    epochs: int
    seed: int
    seconds: float = math.inf
    every: int = 1


def train(course: Course, contender: Contender, target: float | None = None) -> Curve:
    """Train until the last epoch, or the first at whose end the training loss is at most `target`."""
    chosen, seed = course.problem, course.seed
    model = chosen.build(seed)
    settings = dict(contender.settings)
    optimizer = create(contender.optimizer, model, likelihood=chosen.likelihood, **settings)
    seconds, points, diverged = 0.0, [], False
    if optimizer.warms:
        start = timing.CLOCK()
        optimizer.warm_start(lambda x=x, y=y: chosen.loss(model(x), y) for x, y in _epoch(course, 0))
        seconds = timing.CLOCK() - start
    for epoch in range(course.epochs + 1):
        if epoch:
            start = timing.CLOCK()
            for x, y in _epoch(course, epoch - 1):
                optimizer.step(lambda x=x, y=y: chosen.loss(model(x), y))
            seconds += timing.CLOCK() - start
        over = epoch == course.epochs or seconds >= course.seconds
        if epoch % course.every and not over:
            continue
        losses = [
            evaluate(model, chosen, part, chosen.batch_size)["loss"] for part in (course.split.train, course.split.test)
        ]
        if diverged := not all(map(math.isfinite, losses)):
            break
        points.append(Point(epoch, seconds, *losses))
        print(f"{contender.label}, seed {seed}, {points[-1]}", file=sys.stderr, flush=True)
        if over or (target is not None and losses[0] <= target):
            break
    return Curve(contender.label, seed, tuple(points), diverged)


def write(curves: Iterable[Curve], path: Path) -> None:
    """One CSV row per point."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["what", "seed", "epoch", "seconds", "train_loss", "test_loss"])
        for curve in curves:
            for p in curve.points:
                numbers = f"{p.seconds:.3f}", f"{p.train_loss:.6g}", f"{p.test_loss:.6g}"
                rows.writerow([curve.label, curve.seed, p.epoch, *numbers])


def _epoch(course: Course, number: int) -> Iterator[tuple[Tensor, Tensor]]:
    return batches(course.split.train, course.problem.batch_size, number, course.seed, last="keep")
