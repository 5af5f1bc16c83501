"""The page of a picture: panels, colours that colour-blind readers can tell apart, names made safe, PNG and SVG."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curvlab.errors import CurvlabError
from curvlab.formats.whole_file import whole_file
from curvlab.quoting import printable
from curvlab.reports.shown_names import shortened, shown_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Colour = str | tuple[float, ...]

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#F0E442")
"""The palette of Okabe and Ito, for things without an order."""
DASHES = ("-", "--", "-.", ":")
"""With the colours, so that lines are told apart on paper without colours as well, and beyond eight of them."""
MOST_NAMES = 12
"""Lines that a legend names; beyond, a colour bar tells how deep a layer is."""


def panels(count: int, width: float, height: float, shared: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels of that size in inches, in rows of at most four; `shared`: with one vertical axis."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(count, 4)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, sharey=shared).flatten().tolist()
    for empty in axes[count:]:
        empty.remove()
    return figure, axes[:count]


def kind_style(place: int) -> tuple[Colour, str]:
    """Colour and dash of the one at that place among things without an order."""
    return COLOURS[place % len(COLOURS)], DASHES[(place + place // len(COLOURS)) % len(DASHES)]


def by_depth(count: int) -> list[Colour]:
    """A colour for each of so many things in an order, dark to light, in grey print too."""
    from matplotlib import colormaps

    return [colormaps["viridis"](0.9 * i / max(count - 1, 1)) for i in range(count)]


def depth_legend(figure: Figure, axes: Axes, names: Sequence[str]) -> None:
    """Names of the lines drawn in the colours `by_depth`; of many, a bar from the first layer to the last."""
    if len(names) <= MOST_NAMES:
        axes.legend(fontsize="small")
        return
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    colours = LinearSegmentedColormap.from_list("depth", by_depth(64))
    bar = figure.colorbar(ScalarMappable(Normalize(0, len(names) - 1), colours), ax=axes, ticks=[0, len(names) - 1])
    ends = safe_names([names[0], names[-1]], 20)
    bar.ax.set_yticklabels([ends[names[0]], ends[names[-1]]])


def safe(text: str, width: int = 32) -> str:
    """A name from a file as matplotlib may draw it: no control character, no formula, not too long."""
    return _no_formula(shortened(printable(text), width))


def safe_names(names: Sequence[str], width: int = 32) -> dict[str, str]:
    """Each name as `safe` makes it, no two of them alike."""
    return {name: _no_formula(text) for name, text in shown_names(names, width, share=False).texts.items()}


def safe_ticks(names: Sequence[str], width: int) -> tuple[list[str], str]:
    """Names along an axis, no two of different ones alike, and what its label must say of them."""
    shown = shown_names(names, width)
    return [_no_formula(shown.texts[name]) for name in names], _no_formula(shown.note())


def _no_formula(text: str) -> str:
    return text.replace("$", r"\$")


def save_figure(figure: Figure, folder: Path, stem: str) -> tuple[Path, ...]:
    """`stem`.png and `stem`.svg in the folder, the same bytes whenever they are drawn again; returns their paths.

    Raises:
        CurvlabError: they cannot be written.
    """
    from matplotlib import rc_context

    paths = (folder / f"{stem}.png", folder / f"{stem}.svg")
    kept: dict[str, Any] = {".png": {"Software": None}, ".svg": {"Date": None}}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with rc_context({"svg.hashsalt": "curvlab"}), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")  # a name in a script that the font does not have is boxes
            for path in paths:
                with whole_file(path) as beside:  # a link in the folder is replaced, never followed
                    figure.savefig(beside, dpi=150, format=path.suffix[1:], metadata=kept[path.suffix])
    except OSError as error:
        raise CurvlabError(f"'{folder}' cannot be written to", str(error.strerror), "choose another --plots") from error
    return paths
