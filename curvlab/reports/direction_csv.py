"""Directions as CSV: one line per optimizer, layer and step."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from curvlab.reports.escape import escape

if TYPE_CHECKING:
    from curvlab.comparison.results import Comparison

COLUMNS = ("optimizer", "layer", "step", "cosine", "fisher_cosine", "predicted_decrease")


def directions_to_csv(comparison: Comparison) -> str:
    """With a heading; cells of numbers that do not exist are empty. `predicted_decrease` is of all layers together."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for label, one in comparison.optimizers.items():
        for step, found in zip(comparison.measured, one.agreements, strict=True):
            for layer in one.layers:
                cells = (found.cosine[layer], found.fisher_cosine[layer], found.decrease)
                writer.writerow([escape(label), escape(layer), step, *("" if v is None else v for v in cells)])
    return text.getvalue()
