"""Pictures of a training run: the loss against epochs and against seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curvlab.document.figure import Axis, Curve, Figure, Panel
from curvlab.errors import CurvlabError
from curvlab.training.metrics_log import read_log

if TYPE_CHECKING:
    from curvlab.training.result import TrainingResult


def training_figures(result: TrainingResult) -> Iterator[Figure]:
    """`loss`, from the run's metrics.jsonl.

    Raises:
        CurvlabError: there was no evaluation.
    """
    evaluations = _evaluations(result.folder / "metrics.jsonl")
    losses = {part: tuple(one[part]["loss"] for one in evaluations) for part in ("train", "test")}
    positive = all(loss is not None and loss > 0 for values in losses.values() for loss in values)
    horizontal = {
        "epoch": tuple(one["epoch"] for one in evaluations),
        "training seconds": tuple(one["seconds"]["train"] for one in evaluations),
    }
    panels = []
    for label, places in horizontal.items():
        curves = tuple(
            Curve(part, places, values, style, marker="os"[style])
            for style, (part, values) in enumerate(losses.items())
        )
        vertical = Axis(f"loss ({result.problem['likelihood']})", "log" if positive else "linear")
        panels.append(Panel("", Axis(label), vertical, curves))
    title = f"{result.problem['name']}, {result.optimizer}, seed {result.seed}"
    yield Figure("loss", tuple(panels), title, (5.0, 4.0), legend="each", shared=True)


def _evaluations(path: Path) -> list[dict[str, Any]]:
    """The lines of the file with an evaluation; a loss that is not finite is null there, a gap in the line."""
    found = [entry for entry in read_log(path) if entry["train"] is not None]
    if not found:
        raise CurvlabError("there is nothing to plot", "the run ended before its first evaluation")
    return found
