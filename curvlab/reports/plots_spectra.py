"""Eigenvalue spectra of the K-FAC factors A and G of every layer, by their quantiles."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from curvlab.operators.summary import QUANTILE_LEVELS
from curvlab.reports.plots_figure import by_depth, legend, panels, safe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from curvlab.analyses.results import Analysis

FACTORS = {"input_factor": "input factor A", "gradient_factor": "gradient factor G"}


def plot_spectra(analysis: Analysis) -> Figure | None:
    """A line per layer for A and one for G, on a logarithmic axis, zeros left out; None without factors."""
    layers = [layer for layer in analysis.layers if layer.kfac is not None]
    levels = analysis.settings.get("quantile_levels", QUANTILE_LEVELS)
    if not layers:
        return None
    figure, axes = panels(2, 5.2, 4.2)
    for axis, (field, title) in zip(axes, FACTORS.items(), strict=True):
        for layer, colour in zip(layers, by_depth(len(layers)), strict=True):
            spectrum = getattr(layer.kfac, field)
            if spectrum is None or not spectrum.quantiles or len(spectrum.quantiles) != len(levels):
                continue
            values = [value if value > 0 else math.nan for value in spectrum.quantiles]
            axis.plot(levels, values, "-o", markersize=3, linewidth=1.4, color=colour, label=safe(layer.name, 24))
        axis.set(yscale="log", xlabel="quantile", ylabel="eigenvalue", title=title)
        axis.grid(alpha=0.3)
    if axes[0].lines:
        legend(figure, axes[-1], [layer.name for layer in layers])
    figure.suptitle("Eigenvalues of the curvature factors")
    return figure
