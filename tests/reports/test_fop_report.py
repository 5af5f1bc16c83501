"""What FOP has learned, in the table, the CSV and the JSON."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest
from reports.analysis_fixture import analysis, spectrum
from rich.cells import cell_len
from rich.console import Console

from curvlab.analyses.fop import FopResult
from curvlab.analyses.fop_structure import GradientAngle, KernelStructure
from curvlab.document.json import dumps
from curvlab.reports.analysis import analysis_document
from curvlab.reports.analysis_records import analysis_records
from curvlab.reports.terminal import print_document
from curvlab.reports.writers.csv import to_csv

CONV = FopResult(
    name="conv1",
    parameter="conv1.weight",
    form="full",
    size=9,
    rank=9,
    normalized=False,
    kernel=(3, 3),
    spectrum=replace(spectrum(9, 25.0), stderr={}),
    norm=3.125,
    structure=KernelStructure(1.0625, (-0.0625, 0.03125), 0.0, 0.75),
    angle=GradientAngle(44.5, "data", 1797),
)
FC = FopResult(
    name="fc1",
    parameter="fc1.weight",
    form="low-rank",
    size=64,
    rank=4,
    normalized=True,
    kernel=None,
    structure=KernelStructure(1.0, (), 0.001, None),
    angle=GradientAngle(None, "data", 1797),
    note="no eigenvalues: they need 3 bytes, and 2 are allowed",
)


def learned(*found):
    return analysis().having(fop=found or (CONV, FC))


def shown(result, width=100):
    out = io.StringIO()
    print_document(Console(file=out, width=width, highlight=False), analysis_document(result))
    return out.getvalue()


def test_the_table_has_a_row_per_matrix():
    text = shown(learned())
    heading, conv, fc = text.split("FOP's learned matrices\n")[1].splitlines()[:3]
    assert "∞" not in heading
    for part in ("conv1", "full", "3x3", "12.5", "0.500", "25 ", "3.12", "1.06", "-0.062 · +0.031", "75%"):
        assert part in conv
    for part in ("fc1", "rank 4 norm", "64", "1", "–"):
        assert part in fc
    assert "44.5°" in text
    joined = " ".join(text.split())
    assert "note: FOP's matrix of fc1.weight: no eigenvalues: they need 3 bytes" in joined
    assert "note: angles are of the mean gradient of 1,797 examples at the data's own targets" in joined
    assert "share of neighbouring pairs below 0" in joined


def test_drawn_targets_are_called_so():
    drawn = replace(CONV, angle=GradientAngle(3.0, "drawn", 50))
    assert "of 50 examples at targets drawn from the network" in " ".join(shown(learned(drawn)).split())


@pytest.mark.parametrize("width", [60, 80, 100])
def test_no_line_is_wider_than_asked_for(width):
    long = replace(CONV, name="encoder.layers.11.convolution.depthwise.0123456789", kernel=(11, 11))
    assert max(cell_len(line) for line in shown(learned(CONV, long), width).splitlines()) <= width


def test_without_matrices_nothing_is_said_of_them():
    assert "FOP" not in shown(analysis())
    assert "angle" not in shown(analysis())
    assert not [
        name for name in to_csv(analysis_records(analysis())).splitlines()[0].split(",") if name.startswith("fop")
    ]


def test_cells_of_the_csv_are_the_numbers_of_the_json():
    result = learned()
    rows = list(csv.DictReader(io.StringIO(to_csv(analysis_records(result)))))
    for row, entry in zip(rows, result.to_dict()["fop"], strict=False):
        assert row["name"] == entry["name"]
        assert row["fop.parameter"] == entry["parameter"]
        assert row["fop.norm"] == ("" if entry["norm"] is None else str(entry["norm"]))
        assert row["fop.structure.diagonal"] == str(entry["structure"]["diagonal"])
        assert row["fop.angle.targets"] == "data"
    assert rows[0]["fop.spectrum.condition_number"] == "25.0"
    assert rows[0]["fop.structure.neighbours.0"] == "-0.0625"
    assert (rows[1]["fop.spectrum.max"], rows[1]["fop.angle.degrees"]) == ("", "")
    assert all(value == "" for name, value in rows[2].items() if name.startswith("fop."))
    names = list(rows[0])
    assert not [name for name in names if any(other.startswith(f"{name}.") for other in names)]


def test_a_layer_with_two_matrices_has_the_first_in_its_row():
    row = next(
        csv.DictReader(io.StringIO(to_csv(analysis_records(learned(CONV, replace(CONV, parameter="conv1.other"))))))
    )
    assert row["fop.parameter"] == "conv1.weight"


def test_the_document_holds_them_in_order():
    document = json.loads(dumps(learned().to_dict()))
    assert [entry["parameter"] for entry in document["fop"]] == ["conv1.weight", "fc1.weight"]
    assert document["fop"][0]["kernel"] == [3, 3]
    assert document["fop"][0]["structure"]["neighbours"] == [-0.0625, 0.03125]
    assert document["fop"][1]["angle"] == {"degrees": None, "targets": "data", "examples": 1797}
    assert analysis().to_dict()["fop"] == []
