"""Sorted eigenvalues of FOP's matrices, a line per layer (fop Figure 5c)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from curvlab.reports.plots_figure import by_depth, legend, panels, safe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from curvlab.analyses.results import FopResult
    from curvlab.formats.curvlab_file.fop_matrices import FopMatrices


def plot_fop_eigenvalues(results: Sequence[FopResult], fop: FopMatrices) -> Figure | None:
    """λ_1 ≥ … ≥ λ_d against their number, or against their share where sizes differ; None without a spectrum.

    A matrix of one row, a learned rate, is a point.
    """
    from curvlab.operators.eigenvalues import eigenvalues

    known = [one for one in results if one.spectrum is not None]
    if not known:
        return None
    figure, (axes,) = panels(1, 7, 4.5)
    alike = len({one.size for one in known if one.size > 1}) == 1
    for one, colour in zip(known, by_depth(len(known)), strict=True):
        values = eigenvalues(fop.operator(one.parameter)).flip(0).tolist()
        places = [i + 1 if alike else (i + 0.5) / one.size for i in range(one.size)]
        marker = "o" if one.size <= 32 else ""
        axes.plot(places, values, marker=marker, markersize=3.5, linewidth=1.4, color=colour, label=safe(one.name))
    axes.axhline(1.0, color="0.5", linestyle=":", linewidth=1)
    axes.set(ylabel="eigenvalue of P", title="Sorted eigenvalues of FOP's matrices (dotted: the identity)")
    axes.set_xlabel("number" if alike else "share of the eigenvalues that are larger")
    axes.grid(alpha=0.3)
    legend(figure, axes, [one.name for one in known])
    return figure
