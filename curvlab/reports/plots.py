"""Pictures: the figures of a document as PNG and SVG (`--plots`)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from curvlab.document.figure import Figure
from curvlab.reports.plots_page import depth_legend, panels, safe, save_figure
from curvlab.reports.plots_panel import draw_panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture

LETTERS = 13.5
"""Letters of a title in an inch."""


def draw(figures: Iterable[Figure], folder: Path) -> tuple[Path, ...]:
    """Every figure as NAME.png and NAME.svg in `folder`, which is made if need be.

    Returns:
        Paths of what was written; empty where there was nothing to draw.

    Raises:
        CurvlabError: the files cannot be written.
    """
    return tuple(path for one in figures for path in save_figure(picture(one), folder, one.name))


def picture(figure: Figure) -> Picture:
    """The figure as matplotlib draws it."""
    drawn, axes = panels(len(figure.panels), *figure.size, shared=figure.shared)
    for panel, area in zip(figure.panels, axes, strict=True):
        draw_panel(panel, drawn, area, figure)
    _legend(figure, drawn, axes)
    if figure.title:
        width = drawn.get_figwidth()
        drawn.suptitle(safe(figure.title, int(LETTERS * width)), fontsize="medium" if width > 8 else "small")
    return drawn


def _legend(figure: Figure, drawn: Picture, axes: list[Axes]) -> None:
    if figure.legend == "below":
        handles, labels = axes[0].get_legend_handles_labels()
        columns = min(len(labels), max(2, int(drawn.get_figwidth() / 1.6)))
        drawn.legend(handles, labels, loc="outside lower center", ncols=max(columns, 1), fontsize="small")
    chosen = {"first": axes[:1], "last": axes[-1:], "each": axes}.get(figure.legend, [])
    for area in chosen:
        if figure.order == "depth":
            curves = max((panel.curves for panel in figure.panels), key=len)
            if curves:
                depth_legend(drawn, area, [curve.label for curve in curves])
        elif area.get_legend_handles_labels()[1]:
            area.legend(fontsize="small")
