"""CSV against the JSON of the same analysis: every number in its column, one row per layer."""

from __future__ import annotations

import csv
import io

import pytest
from reports.analysis_fixture import analysis, layer

from curvlab.reports.analysis_records import analysis_records
from curvlab.reports.writers.csv import to_csv


def written(result):
    return to_csv(analysis_records(result))


def rows(result):
    return list(csv.DictReader(io.StringIO(written(result))))


def leaf(document, path):
    for key in path.split("."):
        if document is None:
            return None
        document = document[int(key)] if isinstance(document, list) else document[key]
    return document


def test_every_cell_is_what_the_json_has_under_that_path():
    result = analysis()
    for row, document in zip(rows(result), result.to_dict()["layers"], strict=True):
        for path, cell in row.items():
            if path.startswith("coverage.") or path == "shape":
                continue
            wanted = leaf(document, path)
            assert cell == ("" if wanted is None else str(wanted)), path
    assert rows(result)[0]["moments.condition_number.lnb"] == "93.75"
    assert rows(result)[0]["tnt.modes.1.size"] == "64"
    assert rows(result)[1]["moments.condition_number.identity"] == ""
    assert rows(result)[1]["moments.condition_number_nonzero.identity"] == "325000.0"
    assert rows(result)[2]["evidence"] == "bias length 10 equals the rows of weight"


def test_facts_and_coverage():
    first, _, head = rows(analysis())
    assert first["shape"] == "16x1x3x3"
    assert (first["coverage.status"], first["coverage.reason"]) == ("analyzed", "")
    assert (head["coverage.status"], head["coverage.reason"]) == ("weights-only", "its weight is not finite")
    assert head["kfac.kronecker.rank"] == ""


def test_no_column_stands_for_a_section():
    names = written(analysis()).splitlines()[0].split(",")
    assert len(names) == len(set(names))
    assert not [name for name in names if any(other.startswith(f"{name}.") for other in names)]


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@x"])
def test_no_name_is_a_formula(name):
    assert rows(analysis(extra=(layer(name, "Linear", (2, 2), 3.0),)))[-1]["name"] == f"'{name}"


def test_no_name_moves_a_cursor_or_breaks_a_row():
    result = analysis(extra=(layer('a"b,c\r\n\x1b[31m', "Linear", (2, 2), 3.0),))
    assert len(written(result).splitlines()) == 5
    assert rows(result)[-1]["name"] == 'a"b,c\\r\\n\\x1b[31m'
