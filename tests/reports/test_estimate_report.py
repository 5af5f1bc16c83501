"""The dry run for people and programs."""

from __future__ import annotations

import io
import json

from rich.console import Console

from curvlab.analyses.estimate import BlockEstimate, Estimate
from curvlab.document.json import dumps
from curvlab.reports.estimate import estimate_document
from curvlab.reports.terminal import print_document

ESTIMATE = Estimate(
    (
        BlockEstimate("conv1", "Conv2d", 10, 16, 64, 4096, 1.5e9),
        BlockEstimate(
            "encoder.layers.11.attention.self.query_key_value.\x1b[1m", "Linear", 65, 20, 1, 3 * 2**20, 2.5e6
        ),
    ),
    2**30,
    1.5025e9,
    ("a note",),
)


def shown(estimate):
    out = io.StringIO()
    print_document(Console(file=out, width=100, highlight=False), estimate_document(estimate))
    return out.getvalue()


def test_sizes_and_totals_are_shown():
    text = shown(ESTIMATE)
    for part in ("4 KiB", "3 MiB", "1.5 G", "2.5 M", "peak memory: 1 GiB", "1.5 G", "note: a note", "conv1", "Conv2d"):
        assert part in text
    assert "\x1b" not in text
    assert max(len(line) for line in text.splitlines()) <= 100


def test_without_blocks_only_totals_and_notes():
    text = shown(Estimate((), 0, 0.0, ("weights only",)))
    assert "layer" not in text
    assert "weights only" in text


def test_the_document():
    document = json.loads(dumps(estimate_document(ESTIMATE).contract()))
    assert document["schema"] == "curvlab.estimate/1"
    assert document["memory"] == 2**30
    assert document["blocks"][0] == {
        "name": "conv1",
        "kind": "Conv2d",
        "input_size": 10,
        "output_size": 16,
        "positions": 64,
        "pass_number": None,
        "memory": 4096,
        "work": 1.5e9,
    }
