"""An analysis as records: one row per layer, every number of the JSON contract in a column named by its path."""

from __future__ import annotations

from typing import Any

from curvlab.analyses.registry import model_analyses
from curvlab.analyses.results import Analysis
from curvlab.document.json import plain
from curvlab.document.numbers import shape
from curvlab.document.records import Records, leaves, records


def analysis_records(analysis: Analysis) -> Records:
    """One row per layer in model order.

    Columns are the paths of the JSON contract (`moments.condition_number.lnb`, `tnt.modes.0.rank`), analysis by
    analysis; of an analysis with rows of its own the first row of the layer (`fop.norm`); then `coverage.status` and
    `coverage.reason`.
    """
    document = analysis.to_dict()
    facts = tuple(analysis.layers[0].facts()) if analysis.layers else ()
    content = [{key: value for key, value in layer.items() if key not in facts} for layer in document["layers"]]
    for one in model_analyses():
        first = {row["name"]: row for row in reversed(document.get(one.name, ()))}
        for layer, sections in zip(document["layers"], content, strict=True):
            row = first.get(layer["name"], {})
            kept = {key: value for key, value in row.items() if key not in ("name", *one.csv_omits)}
            sections[one.name] = kept or None
    blocks = {block.name: block for block in analysis.coverage.blocks}
    rows: list[dict[str, Any]] = []
    columns: dict[str, dict[str, None]] = {"facts": dict.fromkeys(facts)}
    for layer, sections in zip(document["layers"], content, strict=True):
        row = {**{key: layer[key] for key in facts}, "shape": shape(tuple(layer["shape"]))}
        for name, section in sections.items():
            cells = dict(leaves(name, section))
            columns.setdefault(name, {}).update(dict.fromkeys(cells))
            row |= cells
        block = blocks.get(layer["name"])
        row |= {"coverage.status": block and block.status, "coverage.reason": block and block.reason}
        rows.append(row)
    names = [name for section in columns.values() for name in section]
    coverage = ("coverage.status", "coverage.reason") if rows else ()
    return records(plain(rows), (*names, *coverage))
