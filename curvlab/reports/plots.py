"""The figures of an analysis (`--plots`): what there is to draw, each as PNG and SVG."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from curvlab.reports.plots_figure import save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from curvlab.analyses.results import Analysis
    from curvlab.formats.checkpoint import Checkpoint


def plot_analysis(analysis: Analysis, folder: Path, checkpoint: Checkpoint | None = None) -> tuple[Path, ...]:
    """Figures in `folder`, made if need be: "spectra" and "condition-numbers", and of what FOP has learned
    "fop-heat-maps", "fop-eigenvalues" and, over the snapshots of its training run, "fop-values".

    Args:
        analysis: the results.
        folder: where the files go.
        checkpoint: the model they are of; without it the figures of FOP's matrices are left out.

    Returns:
        Paths of what was written; empty where there was nothing to draw.

    Raises:
        CurvlabError: the files cannot be written, or a snapshot cannot be read.
    """
    written: list[Path] = []
    for stem, figure in _figures(analysis, checkpoint):
        if figure is not None:
            written.extend(save_figure(figure, folder, stem))
    return tuple(written)


def _figures(analysis: Analysis, checkpoint: Checkpoint | None) -> Iterator[tuple[str, Figure | None]]:
    from curvlab.reports.plots_condition import plot_condition
    from curvlab.reports.plots_spectra import plot_spectra

    yield "spectra", plot_spectra(analysis)
    yield "condition-numbers", plot_condition(analysis)
    if not analysis.fop or checkpoint is None or checkpoint.fop is None:
        return
    from curvlab.formats.curvlab_file.fop_snapshots import fop_snapshots
    from curvlab.reports.plots_fop_eigenvalues import plot_fop_eigenvalues
    from curvlab.reports.plots_fop_maps import plot_fop_maps
    from curvlab.reports.plots_fop_values import plot_fop_values

    yield "fop-heat-maps", plot_fop_maps(analysis.fop, checkpoint.fop)
    yield "fop-eigenvalues", plot_fop_eigenvalues(analysis.fop, checkpoint.fop)
    if checkpoint.path is not None:
        yield "fop-values", plot_fop_values(analysis.fop, fop_snapshots(checkpoint.path))
