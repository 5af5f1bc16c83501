"""`curvlab.analyze` on one batch, relative to one gradient of it: its pass over the data, and all of it.

The pass ends where the callback `progress` says that all examples have been seen; the survey of the network, which
comes before, is in "all of it", as are the spectra.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from torch import Tensor, nn

import curvlab
from benchmarks.factors import GRADIENT, gradient
from benchmarks.operations import batch
from benchmarks.targets import Target
from benchmarks.timing import Seconds, alternate, show

PASS = "curvlab.analyze: its pass (float64 products, two halves, moments + A + G + per-example TN)"


class _PassIsOver(Exception):  # noqa: N818 - no error: it ends the analysis where nothing more is wanted
    pass


def profiling(model: nn.Module, x: Tensor, y: Tensor) -> Callable[[], object]:
    """A whole profile with the defaults, the batch in one piece."""
    return lambda: curvlab.analyze(model, (x, y), loss="cross-entropy", batch_size=len(x), device=str(x.device))


def passing(model: nn.Module, x: Tensor, y: Tensor, wait: Callable[[], object] = lambda: None) -> Callable[[], Seconds]:
    """The same, of which the pass over the data counts."""

    def run() -> Seconds:
        marks: list[Seconds] = []

        def progress(stage: str, done: int, total: int | None) -> None:
            wait()
            if stage == "statistics":
                marks.append(Seconds.now())
            else:
                raise _PassIsOver

        with suppress(_PassIsOver):
            curvlab.analyze(
                model, (x, y), loss="cross-entropy", batch_size=len(x), device=str(x.device), progress=progress
            )
        return marks[-1] - marks[0]

    return run


def measure(title: str, network: tuple[nn.Module, Tensor, Tensor], rounds: int) -> list[Target]:
    """Time one network and print the table."""
    model, x, y = network
    made = {
        GRADIENT: gradient(model, x, y),
        PASS: passing(model, x, y),
        "curvlab.analyze: all of it": profiling(model, x, y),
    }
    rows = alternate(made, rounds)
    title = f"A profile of {title} ({batch(x, model)})"
    show(title, rows, {})
    return [Target(f"{title}: the pass, in gradients", rows[1].ratio, 3.5)]
