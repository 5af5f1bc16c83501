"""Loss curves of a training run: against epochs and against seconds, as PNG and SVG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from curvlab.errors import CurvlabError
from curvlab.formats.whole_file import whole_file
from curvlab.training.metrics_log import read_log

if TYPE_CHECKING:
    from curvlab.training.result import TrainingResult


def plot_training(result: TrainingResult, folder: Path) -> tuple[Path, ...]:
    """`loss.png` and `loss.svg` in `folder`, drawn from the run's metrics.jsonl; returns their paths.

    Raises:
        CurvlabError: there was no evaluation, or the files cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    evaluations = _evaluations(result.folder / "metrics.jsonl")
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    horizontal = (("epoch", [one["epoch"] for one in evaluations]), ("training seconds", _seconds(evaluations)))
    for axes, (label, places) in zip(figure.subplots(1, 2, sharey=True), horizontal, strict=True):
        for part, style in (("train", "-o"), ("test", "--s")):
            axes.plot(places, [one[part]["loss"] for one in evaluations], style, markersize=3, label=part)
        axes.set_xlabel(label)
        axes.set_ylabel(f"loss ({result.problem['likelihood']})")
        axes.grid(alpha=0.3)
        axes.legend()
    losses = [one[part]["loss"] for one in evaluations for part in ("train", "test")]
    if all(loss is not None and loss > 0 for loss in losses):
        axes.set_yscale("log")
    figure.suptitle(f"{result.problem['name']}, {result.optimizer}, seed {result.seed}".replace("$", r"\$"))
    paths = (folder / "loss.png", folder / "loss.svg")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in paths:
            with whole_file(path) as beside:
                figure.savefig(beside, dpi=150, format=path.suffix[1:])
    except OSError as error:
        raise CurvlabError(f"'{folder}' cannot be written to", str(error.strerror), "choose another --plots") from error
    return paths


def _evaluations(path: Path) -> list[dict[str, Any]]:
    found = [entry for entry in read_log(path) if entry["train"] is not None]
    if not found:
        raise CurvlabError("there is nothing to plot", "the run ended before its first evaluation")
    # A loss that is not finite is null in the file: a gap in the line.
    for entry in found:
        for part in ("train", "test"):
            if entry[part]["loss"] is None:
                entry[part]["loss"] = float("nan")
    return found


def _seconds(evaluations: list[dict[str, Any]]) -> list[float]:
    return [one["seconds"]["train"] for one in evaluations]
