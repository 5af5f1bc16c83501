"""Factor files from an enemy: each refused in one sentence before anything is allocated for what it claims."""

from __future__ import annotations

import json
import os
import random
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile.refusal import MOST_MEGABYTES, _peak_megabytes
from hostile.test_hostile_safetensors import container, tensor
from torch import nn

import curvlab
from curvlab.errors import CheckpointError, CurvlabError
from curvlab.operators.spectrum import spectrum

LAYER: dict[str, Any] = {
    "name": "fc",
    "kind": "Linear",
    "groups": 1,
    "out_features": 2,
    "in_features": 2,
    "by_rows": True,
    "rows": 3,
    "parameters": {"weight": {"name": "fc.weight", "shape": [2, 2]}},
}
FACTS: dict[str, Any] = {
    "schema": "curvlab.factors/1",
    "curvlab": "0.1.0",
    "examples": 3,
    "fisher_type": "mc",
    "mc_samples": 1,
    "kfac_approx": "expand",
    "likelihood": "categorical",
    "seed": 0,
    "sha256": None,
    "data": {"source": "x"},
    "layers": [LAYER],
}
MEAN = {"mean:fc": tensor(0, 16, (1, 2), "F64")}
NUMBERS = struct.pack("<2d", 1.0, 2.0)


def file(facts: Any, tensors: dict[str, Any] = MEAN, numbers: bytes = NUMBERS) -> bytes:
    text = facts if isinstance(facts, str) else json.dumps(facts)
    return container({"__metadata__": {"curvlab.factors": text}, **tensors}, numbers)


def changed(**facts: Any) -> bytes:
    return file({**FACTS, **facts})


def of_layer(**facts: Any) -> bytes:
    return file({**FACTS, "layers": [{**LAYER, **facts}]})


def shaped(shape: Any) -> bytes:
    return of_layer(parameters={"weight": {"name": "fc.weight", "shape": shape}})


SECOND = {"second_moment:fc": tensor(0, 16, (1, 2, 1), "F64")}
ENEMY: dict[str, tuple[bytes, str]] = {
    "no metadata": (container(MEAN, NUMBERS), "metadata does not say so"),
    "of an optimizer": (file("1"), "averages of an optimizer"),
    "deep": (file('{"a":' + "[" * 200_000), "nested too deep"),
    "not JSON": (file("{"), "is not JSON"),
    "not a number": (file('{"examples": NaN}'), "holds NaN"),
    "twice": (file('{"a": 1, "a": 2}'), "stands in it twice"),
    "of another schema": (changed(schema="curvlab.factors/2\x1b[2J"), "factors/2\\x1b[2J', not curvlab.factors/1"),
    "no examples": (changed(examples=0), "examples is '0'"),
    "half an example": (changed(examples=2.5), "examples is '2.5'"),
    "true examples": (changed(examples=True), "examples is 'True'"),
    "too many examples": (changed(examples=2**70), "not a number from 1"),
    "another Fisher": (changed(fisher_type="__import__('os')"), "not one of type-2"),
    "a list for a word": (changed(kfac_approx=["expand"]), "not one of expand, reduce"),
    "a seed that is text": (changed(seed="0"), "its seed is '0'"),
    "data that is a path": (changed(data="/etc/passwd"), "does not say of which data"),
    "no layers": (changed(layers=[]), "lists no layers"),
    "layers that are text": (changed(layers="fc"), "lists no layers"),
    "a layer that is text": (changed(layers=["fc"]), "lists 'fc' as a layer"),
    "a layer twice": (changed(layers=[LAYER, LAYER]), "lists the layer 'fc' twice"),
    "a long name": (of_layer(name="x" * 10**5), "xxx…xxx"),
    "no parameters": (of_layer(parameters={}), "is not described"),
    "a huge layer": (of_layer(in_features=2**31 - 1), "2,147,483,647 inputs"),
    "many groups": (of_layer(groups=2**20, out_features=2**5), "1,048,576 times 32 outputs"),
    "negative rows": (of_layer(rows=-1), "rows is '-1'"),
    "an endless shape": (shaped([2] * 10**5), "a parameter has the shape"),
    "a shape of nothing": (shaped([0, 2]), "a parameter has the shape"),
    "a parameter without a name": (of_layer(parameters={"weight": {"shape": [2, 2]}}), "not a name"),
    "of no layer": (file(FACTS, {"mean:\x1b[2J": MEAN["mean:fc"]}), "'mean:\\x1b[2J', of no layer"),
    "of no statistic": (file(FACTS, {"weights:fc": MEAN["mean:fc"]}), "no statistic that curvlab knows"),
    "of whole numbers": (file(FACTS, {"mean:fc": tensor(0, 16, (1, 2), "I64")}), "is of int64"),
    "of another shape": (file(FACTS, SECOND), "has the shape (1, 2, 1), not (1, 2, 2)"),
    "a diagonal of another shape": (
        file(FACTS, {"fisher_diagonal:fc.weight": tensor(0, 16, (2,), "F64")}),
        "not that of the parameter, (2, 2)",
    ),
    "columns of no matrix": (file(FACTS, {"gradient_factor_columns:fc": tensor(0, 16, (2,), "I64")}), "lacks a part"),
    "more columns than there are": (
        file(
            FACTS,
            {
                "second_moment_diagonal:fc": tensor(0, 24, (1, 3), "F64"),
                "second_moment_columns:fc": tensor(24, 48, (3,), "I64"),
            },
            NUMBERS * 3,
        ),
        "is not of the 3 columns that are named",
    ),
    "columns that are numbers": (
        file(FACTS, {"second_moment_columns:fc": tensor(0, 16, (2,), "F64")}),
        "is of float64",
    ),
    "half a sketch": (
        file(
            FACTS,
            {
                "second_moment_rows:fc": tensor(0, 16, (1, 1, 2), "F64"),
                "second_moment_lost:fc": tensor(16, 24, (), "F64"),
            },
            NUMBERS + NUMBERS[:8],
        ),
        "lacks a part",
    ),
    "rows of none": (file(FACTS, {"second_moment_rows:fc": tensor(0, 0, (1, 0, 2), "F64")}, b""), "not (1, rows, 2)"),
    "cut short": (file(FACTS)[:-4], "ends 4 bytes before"),
}


@pytest.mark.parametrize("name", ENEMY)
def test_factor_files_of_an_enemy_are_refused(name: str, tmp_path: Path) -> None:
    content, words = ENEMY[name]
    path = tmp_path / "f.safetensors"
    path.write_bytes(content)
    before = _peak_megabytes()
    with pytest.raises(CheckpointError) as caught:
        curvlab.load_factors(path)
    sentence = str(caught.value)
    assert words in sentence
    assert sentence.isprintable()
    assert len(sentence) < 1500
    assert _peak_megabytes() - before < MOST_MEGABYTES


def test_the_honest_one_is_read(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(file(FACTS))
    assert curvlab.load_factors(tmp_path / "f")["fc"].mean.tolist() == [1.0, 2.0]


def test_numbers_that_are_none_are_refused_when_they_are_read(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(file(FACTS, MEAN, struct.pack("<2d", 1.0, float("nan"))))
    factors = curvlab.load_factors(tmp_path / "f")
    with pytest.raises(CheckpointError, match=r"'mean:fc' .* are not finite"):
        factors["fc"].mean  # noqa: B018 - reading it is the test


@pytest.mark.parametrize("places", [(1, 0), (0, 0), (-1, 0), (0, 2)], ids=str)
def test_columns_that_are_no_places_are_refused_when_they_are_read(places: tuple[int, int], tmp_path: Path) -> None:
    tensors = {
        "second_moment_diagonal:fc": tensor(0, 16, (1, 2), "F64"),
        "second_moment_columns:fc": tensor(16, 32, (2,), "I64"),
    }
    (tmp_path / "f").write_bytes(file(FACTS, {**MEAN, **_moved(tensors)}, NUMBERS * 2 + struct.pack("<2q", *places)))
    with pytest.raises(CheckpointError, match="no places in ascending order"):
        curvlab.load_factors(tmp_path / "f")["fc"].second_moment  # noqa: B018 - reading it is the test


def _moved(tensors: dict[str, Any]) -> dict[str, Any]:
    """The tensors behind a mean of 16 bytes."""
    return {
        name: {**one, "data_offsets": [place + 16 for place in one["data_offsets"]]} for name, one in tensors.items()
    }


def test_a_layer_without_the_statistic_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(file(FACTS))
    layer = curvlab.load_factors(tmp_path / "f")["fc"]
    assert layer.gradient_factor is None
    assert layer.operator is None
    for read in ("second_moment", "input_factor"):
        with pytest.raises(CheckpointError, match="the factor file has no second_moment of the layer 'fc'"):
            getattr(layer, read)
    with pytest.raises(CheckpointError, match="no input_values"):
        layer.eigenbasis("input")


@pytest.mark.parametrize("kind", ["nothing", "folder", "pipe"])
def test_what_is_no_file_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "f"
    if kind == "folder":
        path.mkdir()
    if kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(CurvlabError):
        curvlab.load_factors(path)


def test_a_file_of_half_the_factors_continues_with_a_reason(tmp_path: Path) -> None:
    """An analysis of a file that holds the mean alone has no result, and no crash."""

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(2, 2, bias=False)

    (tmp_path / "f").write_bytes(file(FACTS))
    found = curvlab.analyze(Named(), factors_from=str(tmp_path / "f"))
    assert found["fc"].moments is None
    assert found["fc"].kfac is None
    assert found["fc"].weights is not None


def test_damaged_files_are_refused_or_read(tmp_path: Path) -> None:
    """400 files with some bytes changed, cut or repeated: numbers or one sentence, and nothing else."""
    model = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 3))
    data = torch.randint(0, 9, (7, 3)), torch.randint(0, 3, (7,))
    curvlab.analyze(model, data, analyses=("factors",), factors=str(tmp_path / "f"), eigenbases=True)
    sound, draw = (tmp_path / "f").read_bytes(), random.Random(0)
    header = 8 + int.from_bytes(sound[:8], "little")
    read, said = 0, list[str]()
    for _ in range(400):
        damaged = bytearray(sound)
        for _ in range(draw.randint(1, 3)):
            place = draw.randrange(header if draw.random() < 0.8 else len(damaged))
            kind = draw.random()
            if kind < 0.6:
                damaged[place] = draw.randrange(32, 127)
            elif kind < 0.8:
                damaged[place : place + draw.randint(1, 9)] = b""
            else:
                damaged[place:place] = damaged[place : place + draw.randint(1, 9)]
        (tmp_path / "g").write_bytes(damaged)
        try:
            for layer in curvlab.load_factors(tmp_path / "g").values():
                for one in (layer.input_operator, layer.gradient_operator, layer.second_moment_operator):
                    spectrum(one) if one is not None else None
                dict(layer.fisher_diagonal)
            read += 1
        except CurvlabError as error:
            said.append(str(error))
    assert read > 0
    assert all(sentence.isprintable() for sentence in said)
