"""Pictures of FOP's matrices P: heat maps, sorted eigenvalues, and their entries over training (FOP, Figure 5)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from curvlab.document.figure import MOST_PANELS, Axis, Curve, Figure, HeatMap, Histogram, Level, Panel, first_of
from curvlab.formats.checkpoint import Checkpoint
from curvlab.formats.curvlab_file.fop_matrices import FopMatrices
from curvlab.formats.curvlab_file.fop_snapshots import Snapshot, fop_snapshots
from curvlab.operators.eigenvalues import eigenvalues
from curvlab.operators.matrix import matrix

if TYPE_CHECKING:
    from curvlab.analyses.fop import FopResult

LARGEST_MAP = 256
"""Sides of the largest matrix that is drawn."""
LARGEST_COUNTED = 1024
"""Sides of the largest matrix whose entries are counted."""
LABELLED = 25
"""Positions of the largest kernel whose positions are named."""
MARKED = 32
"""Eigenvalues of the largest matrix whose line has a mark for each."""
BINS = 31


def fop_figures(results: Sequence[FopResult], checkpoint: Checkpoint) -> Iterator[Figure]:
    """All there is to draw of the matrices of a model.

    Raises:
        CheckpointError: a snapshot beside the model cannot be read.
    """
    assert checkpoint.fop is not None
    snapshots = () if checkpoint.path is None else fop_snapshots(checkpoint.path)
    fop = checkpoint.fop
    figures = (heat_maps(results, fop), spectra(results, fop), entry_histograms(results, snapshots))
    yield from (figure for figure in figures if figure is not None)


def heat_maps(results: Sequence[FopResult], fop: FopMatrices) -> Figure | None:
    """A panel per matrix of 2 to `LARGEST_MAP` rows, a kernel's positions in its own coordinates; None if none is.

    The colours reach as far as the weights off the diagonal, which they are there to show: the diagonal, near 1, is
    beyond their end, and its mean is in the title.
    """
    known = [one for one in results if one.structure is not None and 2 <= one.size <= LARGEST_MAP]
    if not known:
        return None
    panels = tuple(_heat_map(matrix(fop.operator(one.parameter)), one) for one in known[:MOST_PANELS])
    title = f"FOP's learned matrices P{first_of(len(panels), len(known))}"
    return Figure("fop-heat-maps", panels, title, (4.2, 3.8))


def _heat_map(p: Tensor, one: FopResult) -> Panel:
    assert one.structure is not None
    off = p - p.diag().diag()
    limit = off.abs().max().item() or p.abs().max().item() or 1.0
    kernel = one.kernel or ()
    title = f"{one.name}: diagonal {one.structure.diagonal:.3f}"
    values = tuple(map(tuple, p.tolist()))
    if not kernel or one.size > LABELLED:
        across = Axis("position in the kernel" if kernel else "input")
        return Panel(title, across, heat_map=HeatMap(values, limit, label="weight"))
    names = [",".join(map(str, place)) for place in product(*map(range, kernel))]
    ticks: Any = tuple(enumerate(names))
    across, down = (
        Axis("position in the kernel (row, column)", ticks=ticks),
        Axis("position (row, column)", ticks=ticks),
    )
    return Panel(title, across, down, heat_map=HeatMap(values, limit, kernel[-1], "weight"))


def spectra(results: Sequence[FopResult], fop: FopMatrices) -> Figure | None:
    """λ_1 ≥ … ≥ λ_d against their number, or against their share where sizes differ; None without a spectrum.

    A matrix of one row, a learned rate, is a point.
    """
    known = [one for one in results if one.spectrum is not None]
    if not known:
        return None
    alike = len({one.size for one in known if one.size > 1}) == 1
    curves = []
    for style, one in enumerate(known):
        values = tuple(eigenvalues(fop.operator(one.parameter)).flip(0).tolist())
        places = tuple(float(i + 1) if alike else (i + 0.5) / one.size for i in range(one.size))
        curves.append(Curve(one.name, places, values, style, marker="o" if one.size <= MARKED else ""))
    panel = Panel(
        "Sorted eigenvalues of FOP's matrices (dotted: the identity)",
        Axis("number" if alike else "share of the eigenvalues that are larger"),
        Axis("eigenvalue of P"),
        tuple(curves),
        levels=(Level(1.0),),
    )
    return Figure("fop-eigenvalues", (panel,), size=(7, 4.5), order="depth", legend="last")


def entry_histograms(results: Sequence[FopResult], snapshots: Sequence[Snapshot]) -> Figure | None:
    """A panel per matrix, in it a histogram of P − I per snapshot, the first at the back; None without two of one."""
    known: dict[str, list[tuple[str, Tensor]]] = {}
    for one in results:
        if one.structure is not None and 2 <= one.size <= LARGEST_COUNTED:
            found = [(s.title, _moved(matrix(s.fop.operator(one.parameter)))) for s in snapshots if _has(s, one)]
            sound = [(title, values) for title, values in found if bool(values.isfinite().all())]
            if len(sound) > 1:
                known[one.name] = sound
    if not known:
        return None
    panels = tuple(_histograms(name, histories) for name, histories in list(known.items())[:MOST_PANELS])
    title = f"Entries of P − I, what FOP has learned, over training{first_of(len(panels), len(known))}"
    return Figure("fop-values", panels, title, (3.6, 3.4), "depth")


def _has(snapshot: Snapshot, one: FopResult) -> bool:
    factors = snapshot.fop.factors
    return one.parameter in factors and factors[one.parameter].shape[0] == one.size


def _moved(p: Tensor) -> Tensor:
    """All entries of P − I."""
    return (p - torch.eye(len(p), dtype=p.dtype)).flatten()


def _histograms(name: str, histories: Sequence[tuple[str, Tensor]]) -> Panel:
    everything = torch.cat([values for _, values in histories])
    low, high = everything.min().item(), everything.max().item()
    margin = 0.05 * (high - low) or 0.05
    edges = torch.linspace(low - margin, high + margin, BINS + 1, dtype=torch.float64)
    middles = tuple(((edges[1:] + edges[:-1]) / 2).tolist())
    counts = ((title, torch.histogram(values, edges).hist.tolist()) for title, values in histories)
    histograms = tuple(Histogram(title, middles, tuple(heights)) for title, heights in counts)
    return Panel(name, Axis("entry of P − I"), histograms=histograms)
