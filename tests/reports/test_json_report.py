"""The JSON contract: its keys, its nulls, and that it is JSON."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from reports.analysis_fixture import analysis, layer

from curvlab.document.json import dumps, plain

SPECTRUM = {
    "size",
    "trace",
    "max",
    "min",
    "rank",
    "effective_rank",
    "condition_number",
    "condition_number_nonzero",
    "quantiles",
}


def test_the_document_is_the_contract():
    document = analysis().to_dict()
    assert list(document) == [
        *("schema", "curvlab", "command", "seed", "environment", "model", "data", "settings"),
        *("coverage", "layers", "summary", "fop", "hessian", "notes"),
    ]
    assert document["schema"] == "curvlab.analysis/1"
    assert document["command"] == ["curvlab", "analyze", "model.safetensors"]
    assert document["seed"] == 7
    assert set(document["model"]) == {"path", "format", "sha256", "parameters", "runnable", "architecture"}
    assert document["data"] == {"source": "digits", "samples": 1797, "synthetic": False, "input_shape": [1, 8, 8]}
    assert set(document["coverage"]) == {"parameters", "analyzed", "blocks"}
    assert {"name", "status", "reason"} <= set(document["coverage"]["blocks"][0])
    first = document["layers"][0]
    assert {"name", "kind", "shape", "parameters", "confidence", "weights", "moments", "kfac", "tnt"} <= set(first)
    assert {"spectral_norm", "frobenius_norm", "stable_rank", "effective_rank", "condition_number", "nonfinite"} <= set(
        first["weights"]
    )
    assert {"count", "size", "rank", "effective_rank", "mean_energy", "dead", "eigenvalues", "stderr"} <= set(
        first["moments"]
    )
    for table in ("condition_number", "condition_number_nonzero"):
        assert set(first["moments"][table]) == {"identity", "centered", "diagonal", "lnb", "whitened"}
    assert set(first["moments"]["eigenvalues"]) == {"min", "max", "quantiles"}
    assert first["kfac"]["normalization"] == "A=1/N sum_nt, G=1/(NT) sum_nt"
    assert first["kfac"]["pi"] == 1.75
    assert first["tnt"]["statistic"] == "per-example"
    for spectrum in (
        *(first["kfac"][key] for key in ("input_factor", "gradient_factor", "kronecker")),
        *first["tnt"]["modes"],
    ):
        assert set(spectrum) >= SPECTRUM


def test_it_survives_being_written_and_read():
    document = analysis().to_dict()
    assert json.loads(dumps(document)) == document


def test_what_does_not_exist_is_null_and_layers_keep_their_order():
    document = analysis(data=False).to_dict()
    assert document["data"] is None
    assert [one["name"] for one in document["layers"]] == ["conv1", "fc1", "head"]
    head = document["layers"][2]
    assert (head["moments"], head["kfac"], head["tnt"]) == (None, None, None)
    assert document["layers"][1]["moments"]["condition_number"]["identity"] is None
    assert document["layers"][1]["moments"]["condition_number_nonzero"]["identity"] == 3.25e5
    assert (document["layers"][1]["evidence"], head["evidence"]) == (None, "bias length 10 equals the rows of weight")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, np.float64("nan")])
def test_no_number_that_is_not_finite_gets_through(bad):
    first = analysis().layers[0]
    spoiled = replace(analysis(), layers=(replace(first, confidence=bad),), settings={"x": [bad, torch.tensor(bad)]})
    document = spoiled.to_dict()
    assert document["layers"][0]["confidence"] is None
    assert document["settings"]["x"] == [None, None]
    json.loads(dumps(document), parse_constant=pytest.fail)


def test_scalars_of_numpy_and_torch_become_plain():
    assert plain({"a": np.int64(3), "b": torch.tensor(2.5), "c": (np.bool_(True),)}) == {"a": 3, "b": 2.5, "c": [True]}


def test_what_json_has_no_form_for_is_an_error_and_not_a_string():
    with pytest.raises(TypeError, match="object"):
        plain({"a": object()})


def test_hostile_names_cannot_move_a_cursor():
    text = dumps(analysis(extra=(layer("\x1b[2J\u202e\x9b", "Linear", (2, 2), 3.0),)).to_dict())
    assert text.replace("\n", "").isprintable()
    assert text.isascii()
    assert json.loads(text)["layers"][-1]["name"] == "\x1b[2J\u202e\x9b"
