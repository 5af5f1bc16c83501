"""Pictures of an analysis: those of every analysis that was done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curvlab.analyses.registry import definitions
from curvlab.analyses.results import Analysis
from curvlab.document.figure import Figure

if TYPE_CHECKING:
    from curvlab.formats.checkpoint import Checkpoint


def analysis_figures(analysis: Analysis, checkpoint: Checkpoint | None = None) -> tuple[Figure, ...]:
    """What there is to draw, each name once: a later analysis's picture replaces an earlier one of the same name.

    Args:
        analysis: the results.
        checkpoint: the model they are of; without it pictures of what the file alone holds are left out.

    Raises:
        CurvlabError: a snapshot of a training run cannot be read.
    """
    figures = {figure.name: figure for one in definitions() for figure in one.figures(analysis, checkpoint)}
    return tuple(figures.values())
