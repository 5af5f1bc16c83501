"""CSV: one row per layer, every number of the JSON contract in a column of its own, named by its path."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from curvlab.document.json import plain
from curvlab.reports.escape import escape
from curvlab.reports.numbers import shape

if TYPE_CHECKING:
    from curvlab.analyses.results import Analysis

_FACTS = ("name", "kind", "shape", "parameters", "confidence", "evidence")
_SECTIONS = ("weights", "moments", "kfac", "tnt")


def to_csv(analysis: Analysis) -> str:
    """A header and one row per layer in model order; what does not exist is empty.

    Columns are the paths of the JSON contract (`moments.condition_number.lnb`, `tnt.modes.0.rank`), section by
    section, `fop` (the first matrix of the layer), then `coverage.status` and `coverage.reason`. Characters that do
    not print are spelled out, and a text that a spreadsheet would take for a formula gets an apostrophe in front.
    """
    blocks = {block.name: block for block in analysis.coverage.blocks}
    rows: list[dict[str, Any]] = []
    columns: dict[str, dict[str, None]] = {section: {} for section in ("facts", *_SECTIONS, "fop", "coverage")}
    matrices = {one.name: one for one in reversed(analysis.fop)}
    for layer in analysis.layers:
        content = {**plain(layer), "shape": shape(layer.shape)}
        row = {key: content[key] for key in _FACTS}
        columns["facts"].update(dict.fromkeys(row))
        found = plain(matrices.get(layer.name)) or {}
        content["fop"] = {key: value for key, value in found.items() if key not in ("name", "kernel")} or None
        for section in (*_SECTIONS, "fop"):
            cells = dict(_flat(section, content[section]))
            columns[section].update(dict.fromkeys(cells))
            row |= cells
        block = blocks.get(layer.name)
        cells = {"coverage.status": block and block.status, "coverage.reason": block and block.reason}
        columns["coverage"].update(dict.fromkeys(cells))
        rows.append(row | cells)
    names = [name for section in columns.values() for name in section]
    inner = {name.rpartition(".")[0] for name in names}
    text = io.StringIO()
    writer = csv.DictWriter(text, [n for n in names if n not in inner], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _flat(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """(path, leaf) for every leaf below `value`; a section that was not computed has none."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(f"{path}.{key}", item)
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from _flat(f"{path}.{place}", item)
    elif value is not None or "." in path:
        yield path, value


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = escape(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
