"""FOP's matrices P as heat maps, positions of a kernel in its own coordinates (fop Figure 5a)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

from curvlab.reports.plots_figure import MOST_PANELS, panels, safe

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

    from curvlab.analyses.results import FopResult
    from curvlab.formats.curvlab_file.fop_matrices import FopMatrices

LARGEST = 256
"""Sides of the largest matrix that is drawn."""
LABELLED = 25
"""Positions of the largest kernel whose positions are named."""


def plot_fop_maps(results: Sequence[FopResult], fop: FopMatrices) -> Figure | None:
    """A panel per matrix of 2 to `LARGEST` rows; None if there is none.

    The colours reach as far as the weights off the diagonal, which they are there to show: the diagonal, near 1, is
    beyond their end, and its mean is in the title.
    """
    from curvlab.operators.matrix import matrix

    known = [one for one in results if one.structure is not None and 2 <= one.size <= LARGEST]
    if not known:
        return None
    shown = known[:MOST_PANELS]
    figure, axes = panels(len(shown), 4.2, 3.8)
    for axis, one in zip(axes, shown, strict=True):
        _draw(figure, axis, matrix(fop.operator(one.parameter)), one)
    more = f" (the first {len(shown)} of {len(known)})" if len(known) > len(shown) else ""
    figure.suptitle(f"FOP's learned matrices P{more}")
    return figure


def _draw(figure: Figure, axis: Axes, p: Tensor, one: FopResult) -> None:
    off = p - p.diag().diag()
    far = off.abs().max().item() or p.abs().max().item() or 1.0
    image = axis.imshow(p.numpy(), cmap="RdBu_r", vmin=-far, vmax=far, interpolation="nearest")
    figure.colorbar(image, ax=axis, extend="both", label="weight")
    assert one.structure is not None
    axis.set_title(f"{safe(one.name)}: diagonal {one.structure.diagonal:.3f}", fontsize="medium")
    kernel = one.kernel or ()
    if not kernel or one.size > LABELLED:
        axis.set(xlabel="position in the kernel" if kernel else "input")
        return
    places = [",".join(map(str, place)) for place in product(*map(range, kernel))]
    axis.set_xticks(range(one.size), places, fontsize="x-small", rotation=90)
    axis.set_yticks(range(one.size), places, fontsize="x-small")
    axis.set(xlabel="position in the kernel (row, column)", ylabel="position (row, column)")
    for edge in range(kernel[-1], one.size, kernel[-1]):
        axis.axhline(edge - 0.5, color="black", linewidth=0.6)
        axis.axvline(edge - 0.5, color="black", linewidth=0.6)
