"""Histograms of the entries of P − I over training, from back to front (fop Figure 5b, whose P moves far from I)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from curvlab.reports.plots_figure import MOST_PANELS, by_depth, panels, safe

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

    from curvlab.analyses.results import FopResult
    from curvlab.formats.curvlab_file.fop_snapshots import Snapshot

LARGEST = 1024
"""Sides of the largest matrix whose entries are counted."""
BINS = 31
OVERLAP = 2.5
"""How far a histogram reaches into those behind it, in steps between them."""


def plot_fop_values(results: Sequence[FopResult], snapshots: Sequence[Snapshot]) -> Figure | None:
    """A panel per matrix, in it a histogram per snapshot, the first at the back; None without two snapshots of one."""
    from curvlab.operators.matrix import matrix

    known = {}
    for one in results:
        if one.structure is not None and 2 <= one.size <= LARGEST:
            found = [(s.title, _moved(matrix(s.fop.operator(one.parameter)))) for s in snapshots if _has(s, one)]
            sound = [(title, values) for title, values in found if bool(values.isfinite().all())]
            if len(sound) > 1:
                known[one.name] = sound
    if not known:
        return None
    shown = list(known.items())[:MOST_PANELS]
    figure, axes = panels(len(shown), 3.6, 3.4)
    for axis, (name, histories) in zip(axes, shown, strict=True):
        _draw(axis, name, histories)
    more = f" (the first {len(shown)} of {len(known)})" if len(known) > len(shown) else ""
    figure.suptitle(f"Entries of P − I, what FOP has learned, over training{more}")
    return figure


def _has(snapshot: Snapshot, one: FopResult) -> bool:
    factors = snapshot.fop.factors
    return one.parameter in factors and factors[one.parameter].shape[0] == one.size


def _moved(p: Tensor) -> Tensor:
    """All entries of P − I."""
    return (p - torch.eye(len(p), dtype=p.dtype)).flatten()


def _draw(axis: Axes, name: str, histories: Sequence[tuple[str, Tensor]]) -> None:
    everything = torch.cat([values for _, values in histories])
    low, high = everything.min().item(), everything.max().item()
    margin = 0.05 * (high - low) or 0.05
    edges = torch.linspace(low - margin, high + margin, BINS + 1, dtype=torch.float64)
    middles = ((edges[1:] + edges[:-1]) / 2).tolist()
    for place, ((_, values), colour) in enumerate(zip(histories, by_depth(len(histories)), strict=True)):
        counts = torch.histogram(values, edges).hist
        base = float(len(histories) - 1 - place)
        heights = (base + OVERLAP * counts / counts.max()).tolist()
        axis.fill_between(middles, heights, base, color=colour, alpha=0.75, zorder=place, linewidth=0)
        axis.plot(middles, heights, color="black", linewidth=0.5, zorder=place)
    axis.set_yticks(range(len(histories)), [title for title, _ in reversed(histories)], fontsize="x-small")
    axis.set(xlabel="entry of P − I", title=safe(name))
    axis.locator_params(axis="x", nbins=5)
